"""How far the stages of a work folder are: figures on held-out sentences, for `checkpoint measure`.

vocoder: how well the reply voice is understood, spoken again from its codes. hearing: sentences
written without an error. language, thinker: replies that would be given exactly, greedily, token by
token behind the right ones.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.content import Pcm
from models.errors import CheckpointError
from models.qwen3_omni.mel import LogMel
from models.recipe import acoustics
from models.recipe.codec import Codec
from models.recipe.dialogues import Said
from models.recipe.hearing import ears_of, num_heard_right
from models.recipe.judge import SAMPLE_RATE_HZ as JUDGE_RATE_HZ
from models.recipe.judge import Judge
from models.recipe.learner import Learner, work_learner
from models.recipe.lessons import Classroom, exam_room, lesson, unseen_voice
from models.recipe.reply_voice import reply_codes, reply_speech, sentences_to_speak
from models.recipe.run import load_average
from models.recipe.sheets import lay_out
from models.recipe.sound import resampled, write_wav
from models.recipe.speakers import spoken
from models.recipe.spectra import SAMPLE_RATE_HZ
from models.recipe.stages import vocoder_config
from models.recipe.thinker import decoder_of, imagine, perceive, study
from models.recipe.thinker_stage import trained_learner
from models.recipe.utterances import Utterance, random_prompt
from models.recipe.vocoder import averaged, new_run, speak
from models.recipe.voices import random_voice


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceScore:
    """Sentences picked rightly out of `num_choices`: of the synthesizer's own, and of ours."""

    step: int
    num_sentences: int
    num_choices: int
    original: int
    spoken: int


def score_voice(work: Path, *, seed: int, num_sentences: int) -> VoiceScore:
    """Measure vocoder.pt of `work`; leaves what was spoken in `work`/heard."""
    codec = Codec.load(work / "codec.pt")
    run = new_run(vocoder_config(), codec, seed)
    run.load(work / "vocoder.pt")
    vocoder = averaged(run)
    judge = Judge(sentences_to_speak(work, seed).held_out)
    (work / "heard").mkdir(exist_ok=True)
    original = spoken = 0
    tested = judge.texts[:num_sentences]
    for index, text in enumerate(tested):
        pcm = reply_speech(text, work)
        again = speak(vocoder, reply_codes(text, codec, work)).numpy()
        write_wav(work / "heard" / f"{index:02}.wav", again, SAMPLE_RATE_HZ)
        original += judge.heard(_for_judge(pcm.numpy())) == text
        spoken += judge.heard(_for_judge(again)) == text
    return VoiceScore(
        step=run.step,
        num_sentences=len(tested),
        num_choices=len(judge.texts),
        original=original,
        spoken=spoken,
    )


def _for_judge(pcm: Pcm) -> Pcm:
    louder = pcm * min(5.0, 0.7 / (float(np.abs(pcm).max()) + 1e-6))
    return resampled(louder.astype(np.float32), SAMPLE_RATE_HZ, JUDGE_RATE_HZ)


def _vocoder_lines(work: Path, number: int) -> Iterator[str]:
    score = score_voice(work, seed=0, num_sentences=number)
    yield (
        f"step {score.step}: the recogniser picks {score.spoken} of {score.num_sentences} rightly "
        f"out of {score.num_choices}, of the synthesizer's own {score.original}"
    )


def _hearing_lines(work: Path, number: int) -> Iterator[str]:
    learner = work_learner(work)
    ears = ears_of(learner)
    load_average(work / "hearing.pt", ears.encoder, prefix="encoder.")
    for name, has_unseen_voices, snr_db in _EARS:
        exam = hearing_exam(learner, number, has_unseen_voices=has_unseen_voices, snr_db=snr_db)
        yield f"{name}: {num_heard_right(ears, exam)} of {number} written without an error"


def hearing_exam(
    learner: Learner, number: int, *, has_unseen_voices: bool, snr_db: float | None
) -> list[Utterance]:
    """Held-out prompts: clean, or in noise so much below the speech."""
    log_mel = LogMel()
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(number):
            chance = random.Random(f"hearing exam {index}")
            said = Said(text=random_prompt(chance, "held_out"))
            draw = unseen_voice if has_unseen_voices else random_voice
            pcm = spoken(said, draw(chance), chance, acoustics.CLEAN, Path(scratch))
            if snr_db is not None:
                pcm = acoustics.noisy(pcm, chance, snr_db)
            ids = tuple(learner.word_ids(said.text))
            made.append(Utterance(mel=log_mel.raw_clip(pcm).half(), ids=ids))
    return made


def _language_lines(work: Path, number: int) -> Iterator[str]:
    learner = work_learner(work)
    load_average(work / "language.pt", decoder_of(learner))
    room = exam_room(None, has_unseen_voices=False)
    right, total = score_text(learner, room, num_lessons=number)
    yield f"from imagined rows: {right} of {total} replies exactly right"


def _thinker_lines(work: Path, number: int) -> Iterator[str]:
    learner = trained_learner(work)
    for name, has_unseen_voices, snr_db in _EARS:
        room = exam_room(work / "voices", has_unseen_voices=has_unseen_voices, snr_db=snr_db)
        right, total = score_text(learner, room, num_lessons=number)
        yield f"{name}: {right} of {total} replies exactly right"


@torch.no_grad()
def score_text(learner: Learner, room: Classroom, *, num_lessons: int) -> tuple[int, int]:
    """Replies that would be given exactly, greedily, of how many; imagined where `room` is."""
    right = total = 0
    for seed in range(num_lessons):
        sheet = lay_out(learner, lesson(room, seed, 0))
        chance = random.Random(seed)
        encode = imagine if room.folder is None else perceive
        outcome = study(learner, [sheet], encode(learner, chance)([sheet]))
        right, total = right + outcome.num_right, total + outcome.num_replies
    return right, total


_EARS: tuple[tuple[str, bool, float | None], ...] = (
    ("seen voices", False, None),
    ("unseen voices", True, None),
    ("unseen voices, noise 10 dB below", True, 10.0),
)
MEASURES: Mapping[str, Callable[[Path, int], Iterator[str]]] = {
    "vocoder": _vocoder_lines,
    "hearing": _hearing_lines,
    "language": _language_lines,
    "thinker": _thinker_lines,
}


def measure(work: Path, stage: str, number: int) -> Iterator[str]:
    """Lines about one stage, by `number` sentences or conversations of each kind.

    Raises:
        CheckpointError: the stage has not run, or a synthesizer is missing.
    """
    if not (work / f"{stage}.pt").exists():
        raise CheckpointError(f"{work} holds no {stage}.pt; the stage {stage} makes it")
    torch.set_num_threads(1)
    yield from MEASURES[stage](work, number)
