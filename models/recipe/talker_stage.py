"""The stage that trains the talker over a work folder, behind those of codec and thinker."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import CheckpointError
from models.recipe.codec import Codec
from models.recipe.dialogues import Answered
from models.recipe.learner import Learner
from models.recipe.lessons import Lesson, lesson, training_room
from models.recipe.prefetch import Prefetched
from models.recipe.reply_voice import reply_codes, sentences_to_speak
from models.recipe.run import Effort, Run, keep_on
from models.recipe.sheets import lay_out
from models.recipe.sizes import VOICE
from models.recipe.talker import PACE, Reply, new_talker, take_step
from models.recipe.thinker import imagine
from models.recipe.thinker_stage import trained_learner

REPLIES_PER_STEP = 16
MAX_PAST_TOKENS = 90  # longer ones cost much and teach nothing about speech
MAX_TOKENS = 200  # that the thinker reads for a reply
LONG_SHARE = 0.02
EXTRA_SHARE = 0.5  # of any of the sentences, rare ones and words in no order


def train_talker(work: Path, seed: int, effort: Effort) -> None:
    """Go on with the talker.

    Raises:
        CheckpointError: the codec or the thinker is not there yet.
    """
    if not (work / "codec.pt").exists():
        raise CheckpointError(f"{work} holds no codec.pt; the stage codec makes it")
    learner = trained_learner(work)
    talker = new_talker(learner.config, seed)
    run = Run.new(talker, PACE, seed)
    path = work / "talker.pt"
    if path.exists():
        run.load(path)
    desk = _Desk(
        learner=learner,
        codec=Codec.load(work / "codec.pt"),
        work=work,
        extra=sentences_to_speak(work, seed).train,
    )
    speaker_id = talker.speaker_id(VOICE)
    batches = Prefetched(desk.batch, run.step)

    def step() -> dict[str, float]:
        replies = next(batches)
        rows = imagine(learner, random.Random(run.step))([reply.past for reply in replies])
        return take_step(run, learner, replies, rows, speaker_id)

    try:
        keep_on(run, step, path, effort=effort, steps_per_log=20, steps_per_save=100)
    finally:
        batches.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """Makes batches of replies."""

    learner: Learner
    codec: Codec
    work: Path
    extra: list[str]

    def batch(self, step: int) -> list[Reply]:
        chance = random.Random(f"talker {step}")
        made: list[Reply] = []
        while len(made) < REPLIES_PER_STEP:
            past, text = _cut(lesson(training_room(None), chance.getrandbits(31), 0), chance)
            if chance.random() < EXTRA_SHARE:
                text = chance.choice(self.extra)
            sheet = lay_out(self.learner, past)
            is_long = len(sheet.talker_rows) > MAX_PAST_TOKENS or len(sheet.ids) > MAX_TOKENS
            if not text or (is_long and chance.random() > LONG_SHARE):
                continue
            ids = tuple(self.learner.chat.encode(text))
            codes = reply_codes(text, self.codec, self.work)
            made.append(Reply(past=sheet, text_ids=ids, codes=codes))
        return made


def _cut(whole: Lesson, chance: random.Random) -> tuple[Lesson, str]:
    """A lesson up to one of its spoken replies, and that reply; "" where it has none."""
    spoken = [
        (index, turn.text)
        for index, turn in enumerate(whole.turns)
        if isinstance(turn, Answered) and not turn.is_call
    ]
    if not spoken:
        return whole, ""
    index, text = chance.choice(spoken)
    return replace(whole, turns=whole.turns[:index]), text
