"""The stages that train the decoder over a work folder: from imagined rows, then from real ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from models.errors import CheckpointError
from models.recipe.batches import build_constants
from models.recipe.dialogues import Drill
from models.recipe.drills import DRILLS, SEEING
from models.recipe.heard_words import HeardWords, hear_words
from models.recipe.hearing import ears_of
from models.recipe.hearing_stage import FOLDER, NUM_SHARDS
from models.recipe.learner import Learner, work_learner
from models.recipe.lessons import lesson, training_room
from models.recipe.prefetch import Prefetched
from models.recipe.run import Effort, Run, keep_on, load_average, saved_step
from models.recipe.sheets import Sheet, lay_out
from models.recipe.thinker import (
    LANGUAGE_PACE,
    PACE,
    Encoding,
    decoder_of,
    imagine,
    look,
    perceive,
    take_step,
)
from models.recipe.utterances import has_shard, load_shard, strange_clips

NUM_LESSONS = 12_000  # with sound there are so many different ones; then the next epoch begins
IMAGINED_PER_STEP = 24
SERIES_PER_STEP = 40  # of terse lessons
SHORT_STEPS = 1700  # of the decoder alone: so many with short lessons only, without tools
SHORT_TOKENS = 210
LESSONS_PER_STEP = 14
HEARD_SHARDS = 8  # of utterances, whose words are heard for the imagined rows
NUM_STRANGE = 1500  # clips of speech that is not the model's
MAX_TOKENS = 560  # longer lessons are left out: they cost as much as many short ones
LONG_PER_STEP = 8  # of drills of many exchanges
LONG_EXCHANGES = 6
MAX_LONG_TOKENS = 1500


def train_language(work: Path, seed: int, effort: Effort) -> None:
    """Go on with the decoder, from imagined rows."""
    learner = work_learner(work, seed)
    run = Run.new(decoder_of(learner), LANGUAGE_PACE, seed)
    path = work / "language.pt"
    if path.exists():
        run.load(path)
    room = training_room(None)

    def make(step: int) -> list[Sheet]:
        first = step * IMAGINED_PER_STEP
        longest = SHORT_TOKENS if step < SHORT_STEPS else MAX_TOKENS
        made = (
            lay_out(learner, lesson(room, first + k, 0, system=f"system {step}"))
            for k in range(IMAGINED_PER_STEP)
        )
        return [sheet for sheet in made if len(sheet.ids) <= longest]

    _keep_on(run, learner, make, path, effort, encoding=lambda step: imagine)


def train_thinker(work: Path, seed: int, effort: Effort) -> None:
    """Go on with the decoder behind the encoders, from where it came alone.

    One step of ten has real sounds and pictures; the others are of imagined rows, which are cheap:
    one like it, and the drills of what has to be exact. The pictures of one drill are drawn: where
    two things are seen, each blurs what is written of the other.

    Raises:
        CheckpointError: a stage before it has not run.
    """
    learner = work_learner(work, seed)
    _put_encoders(work, learner)
    path = work / "thinker.pt"
    if not path.exists():
        _put_average(work, "language", decoder_of(learner))
    run = Run.new(decoder_of(learner), PACE, seed)
    if path.exists():
        run.load(path)
    heard = _heard_words(work, learner, run.seed)
    rooms = [training_room(work / "voices"), training_room(None)]
    rooms += [training_room(None, drill, is_drawn=drill is SEEING) for drill in DRILLS]

    def make(step: int) -> list[Sheet]:
        round_, kind = divmod(step, len(rooms))
        if kind == 0:
            epoch, first = divmod(round_ * LESSONS_PER_STEP, NUM_LESSONS)
            count = LESSONS_PER_STEP
        else:
            epoch, first = 0, NUM_LESSONS + step * SERIES_PER_STEP
            count = SERIES_PER_STEP if rooms[kind].is_terse else IMAGINED_PER_STEP
            count = LONG_PER_STEP if _is_long(rooms[kind].drill) else count
        made = [
            lesson(rooms[kind], first + k, epoch, system=f"system {step}") for k in range(count)
        ]
        sheets = [lay_out(learner, one) for one in made]
        longest = MAX_LONG_TOKENS if _is_long(rooms[kind].drill) else MAX_TOKENS
        return [sheet for sheet in sheets if len(sheet.ids) <= longest]

    def encoding(step: int) -> Encoding:
        room = rooms[step % len(rooms)]
        if room.folder is not None:
            return perceive
        return partial(look if room.is_drawn else imagine, heard=heard)

    _keep_on(run, learner, make, path, effort, encoding=encoding)


def trained_learner(work: Path) -> Learner:
    """The averaged weights of encoders and decoder, without gradients.

    Raises:
        CheckpointError: a stage has not run.
    """
    learner = work_learner(work)
    _put_encoders(work, learner)
    _put_average(work, "thinker", decoder_of(learner))
    build_constants(learner.thinker)
    learner.thinker.requires_grad_(False)
    return learner


def _is_long(drill: Drill | None) -> bool:
    return drill is not None and drill.num >= LONG_EXCHANGES


def _heard_words(work: Path, learner: Learner, seed: int) -> HeardWords:
    """Of the ear as it is; kept, for hearing takes minutes."""
    path, step = work / "heard_words.pt", saved_step(work / "hearing.pt")
    found = HeardWords.load(path, step)
    if found is None:
        shards = [number for number in range(NUM_SHARDS) if has_shard(work / FOLDER, number)]
        clips = [
            one
            for number in shards[-HEARD_SHARDS:]
            for one in load_shard(work / FOLDER, number, learner.word_ids)
        ]
        chance = random.Random(f"heard words {seed} {step}")
        strange = strange_clips(NUM_STRANGE, seed)
        found = hear_words(ears_of(learner), clips, chance, strange)
        found.save(path, step)
    return found


def _put_encoders(work: Path, learner: Learner) -> None:
    _put_average(work, "hearing", learner.thinker.audio_tower, prefix="encoder.")
    _put_average(work, "sight", learner.thinker.visual)


def _put_average(work: Path, stage: str, module: nn.Module, *, prefix: str = "") -> None:
    path = work / f"{stage}.pt"
    if not path.exists():
        raise CheckpointError(f"{work} holds no {stage}.pt; the stage {stage} makes it")
    load_average(path, module, prefix=prefix)


def _keep_on(
    run: Run,
    learner: Learner,
    make: Callable[[int], list[Sheet]],
    path: Path,
    effort: Effort,
    *,
    encoding: Callable[[int], Encoding],
) -> None:
    batches: Prefetched[list[Sheet]] = Prefetched(make, run.step)

    def step() -> dict[str, float]:
        chance = random.Random(f"rows {run.seed} {run.step}")
        encode = encoding(run.step)(learner, chance)
        return take_step(run, learner, next(batches), encode)

    try:
        keep_on(run, step, path, effort=effort, steps_per_log=20, steps_per_save=100)
    finally:
        batches.close()
