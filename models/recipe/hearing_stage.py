"""The stage that trains the audio encoder alone over a work folder: sentences, steps, exam."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from models.recipe.hearing import (
    PACE,
    UTTERANCES_PER_STEP,
    Pupil,
    ears_of,
    take_step,
)
from models.recipe.learner import new_learner, work_vocabulary
from models.recipe.phonemes import num_phonemes
from models.recipe.run import Run, keep_on
from models.recipe.utterances import Utterance, load_shard

NUM_SHARDS = 70
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
