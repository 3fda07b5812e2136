"""The stage that trains the talker over a work folder, behind that of the thinker."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from models.config import parse_config
from models.errors import CheckpointError
from models.recipe.codec import Codec
from models.recipe.lessons import Classroom, lesson, training_room
from models.recipe.reply_voice import reply_speech, sentences_to_speak
from models.recipe.run import Run, keep_on
from models.recipe.sizes import VOICE, embedded_config
from models.recipe.talker import PACE, Past, Reply, new_talker, past_of, take_step
from models.recipe.thinker import Learner
from models.recipe.thinker_stage import NUM_LESSONS, trained_learner
from models.recipe.vocoder import END_SAMPLES

REPLIES_PER_STEP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What batches are drawn from."""

    learner: Learner
    room: Classroom
    replies: list[Reply]

    def batch(self, run: Run) -> list[tuple[Past, Reply]]:
        """The replies of this step: one past for all, or it would cost more than the speech."""
        chance = random.Random(f"{run.seed} {run.step}")
        past = past_of(self.learner, lesson(self.room, chance.randrange(NUM_LESSONS), run.step))
        return [(past, reply) for reply in chance.sample(self.replies, REPLIES_PER_STEP)]


def train_talker(work: Path, seed: int, minutes: float) -> None:
    """Go on with the talker.

    Raises:
        CheckpointError: the codec or the thinker is not there yet.
    """
    if not (work / "codec.pt").exists():
        raise CheckpointError(f"{work} holds no codec.pt; the stage codec makes it")
    codec = Codec.load(work / "codec.pt")
    learner = trained_learner(work)
    talker = new_talker(parse_config(embedded_config(learner.vocabulary)), seed)
    run = Run.new(talker, PACE, seed)
    path = work / "talker.pt"
    if path.exists():
        run.load(path)
    texts = sentences_to_speak(work, run.seed).train
    replies = [_reply(text, learner, codec, work) for text in texts]
    readings = Readings(learner=learner, room=training_room(work / "voices"), replies=replies)
    speaker_id = talker.speaker_id(VOICE)
    step = partial(_step, run, readings, speaker_id)
    keep_on(run, step, path, minutes=minutes, steps_per_log=10, steps_per_save=50)


def _step(run: Run, readings: Readings, speaker_id: int) -> dict[str, float]:
    return take_step(run, readings.learner, readings.batch(run), speaker_id)


def _reply(text: str, learner: Learner, codec: Codec, work: Path) -> Reply:
    """The end comes late out of the vocoder: silence behind it."""
    pcm = reply_speech(text, work)
    padded = torch.cat([pcm, pcm.new_zeros(END_SAMPLES)])
    return Reply(text_ids=tuple(learner.chat.encode(text)), codes=codec.encode(padded))
