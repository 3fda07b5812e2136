"""The stage that trains the audio encoder alone over a work folder: sentences, steps, exam."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import torch

from models.qwen3_omni.mel import LogMel
from models.recipe import acoustics, voices
from models.recipe.dialogues import Said
from models.recipe.hearing import (
    PACE,
    UTTERANCES_PER_STEP,
    Pupil,
    ears_of,
    num_heard_right,
    take_step,
)
from models.recipe.learner import Learner, new_learner, work_vocabulary
from models.recipe.phonemes import num_phonemes
from models.recipe.run import Run, keep_on, load_average
from models.recipe.speakers import spoken
from models.recipe.utterances import Utterance, heard_as, load_shard, random_prompt

NUM_SHARDS = 44
FIRST_SHARDS = 8
STEPS_PER_SHARD = 15  # one more of the shards is used after so many steps
FOLDER = "utterances"


def train_hearing(work: Path, seed: int, minutes: float) -> None:
    """Go on with the audio encoder."""
    learner = new_learner(work_vocabulary(work), seed)
    ears = ears_of(learner)
    # The convolutions are a fifth faster so.
    ears.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run.new(Pupil(ears.encoder, num_phonemes(ears.phonemes)), PACE, seed)
    path = work / "hearing.pt"
    if path.exists():
        run.load(path)
    shards: list[list[Utterance]] = []

    def step() -> dict[str, float]:
        wanted = min(NUM_SHARDS, FIRST_SHARDS + run.step // STEPS_PER_SHARD)
        while len(shards) < wanted:
            shards.append(load_shard(work / FOLDER, len(shards), learner.word_ids))
        chance = random.Random(f"hearing {run.seed} {run.step}")
        batch = [chance.choice(chance.choice(shards)) for _ in range(UTTERANCES_PER_STEP)]
        return take_step(run, ears, batch, chance)

    keep_on(run, step, path, minutes=minutes, steps_per_log=25, steps_per_save=200)


def score_hearing(work: Path, exam: list[tuple[str, Utterance]]) -> tuple[int, int]:
    """Sentences that the averaged hearing.pt writes without an error, of how many."""
    learner = new_learner(work_vocabulary(work), 0)
    ears = ears_of(learner)
    load_average(work / "hearing.pt", ears.encoder, prefix="encoder.")
    return num_heard_right(ears, [one for _, one in exam]), len(exam)


def hearing_exam(
    learner: Learner, num_sentences: int, *, has_unseen_voices: bool, snr_db: float | None
) -> list[tuple[str, Utterance]]:
    """Held-out prompts with their sound: clean, or in noise so much below the speech."""
    log_mel = LogMel()
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(num_sentences):
            chance = random.Random(f"hearing exam {number}")
            said = Said(text=random_prompt(chance, "held_out"))
            voice = (
                chance.choice(voices.UNSEEN) if has_unseen_voices else voices.random_voice(chance)
            )
            pcm = spoken(said, voice, chance, acoustics.CLEAN, Path(scratch))
            if snr_db is not None:
                pcm = acoustics.noisy(pcm, chance, snr_db)
            ids = tuple(learner.word_ids(heard_as(said)))
            made.append((said.text, Utterance(mel=log_mel.raw_clip(pcm).half(), ids=ids)))
    return made
