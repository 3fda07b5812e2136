"""The stages that train the thinker over a work folder: the decoder alone, then all together."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from models.errors import CheckpointError
from models.recipe.batches import build_constants
from models.recipe.learner import Learner, new_learner, work_vocabulary
from models.recipe.lessons import lesson, training_room
from models.recipe.prefetch import Prefetched
from models.recipe.run import Run, keep_on, load_average
from models.recipe.sheets import Sheet, lay_out
from models.recipe.thinker import (
    LANGUAGE_PACE,
    PACE,
    decoder_of,
    imagine,
    perceive,
    take_step,
)

NUM_LESSONS = 12_000  # with sound there are so many different ones; then the next epoch begins
IMAGINED_PER_STEP = 24
SHORT_STEPS = (
    2000  # of the decoder alone: so many with short lessons only, of which a step has more
)
SHORT_TOKENS = 210
LESSONS_PER_STEP = 10
MAX_TOKENS = 480  # longer lessons are left out: they cost as much as many short ones


def train_language(work: Path, seed: int, minutes: float) -> None:
    """Go on with the decoder, from imagined rows."""
    learner = new_learner(work_vocabulary(work), seed)
    run = Run.new(decoder_of(learner), LANGUAGE_PACE, seed)
    path = work / "language.pt"
    if path.exists():
        run.load(path)
    room = training_room(None)

    def make(step: int) -> list[Sheet]:
        first = step * IMAGINED_PER_STEP
        longest = SHORT_TOKENS if step < SHORT_STEPS else MAX_TOKENS
        made = (lay_out(learner, lesson(room, first + k, 0)) for k in range(IMAGINED_PER_STEP))
        return [sheet for sheet in made if len(sheet.ids) <= longest]

    _keep_on(run, learner, make, path, minutes, is_imagined=True)


def train_thinker(work: Path, seed: int, minutes: float) -> None:
    """Go on with encoders and decoder together, from where each came alone.

    Raises:
        CheckpointError: one of them is not there yet.
    """
    learner = new_learner(work_vocabulary(work), seed)
    path = work / "thinker.pt"
    if not path.exists():
        put_together(work, learner)
    learner.thinker.model.embed_tokens.weight.requires_grad_(False)
    run = Run.new(learner.thinker, PACE, seed)
    if path.exists():
        run.load(path)
    room = training_room(work / "voices")

    def make(step: int) -> list[Sheet]:
        first = step * LESSONS_PER_STEP
        made = []
        for index in range(first, first + LESSONS_PER_STEP):
            epoch, place = divmod(index, NUM_LESSONS)
            order = list(range(NUM_LESSONS))
            random.Random(f"{seed} {epoch}").shuffle(order)
            made.append(lay_out(learner, lesson(room, order[place], epoch)))
        return [sheet for sheet in made if len(sheet.ids) <= MAX_TOKENS]

    _keep_on(run, learner, make, path, minutes, is_imagined=False)


def put_together(work: Path, learner: Learner) -> None:
    """Give a learner the averaged weights of the stages hearing, sight and language."""
    parts = {
        "hearing": learner.thinker.audio_tower,
        "sight": learner.thinker.visual,
        "language": decoder_of(learner),
    }
    for name, module in parts.items():
        if not (work / f"{name}.pt").exists():
            raise CheckpointError(f"{work} holds no {name}.pt; the stage {name} makes it")
        prefix = "encoder." if name == "hearing" else ""
        load_average(work / f"{name}.pt", module, prefix=prefix)


def trained_learner(work: Path) -> Learner:
    """The averaged weights of thinker.pt, without gradients.

    Raises:
        CheckpointError: there is none.
    """
    if not (work / "thinker.pt").exists():
        raise CheckpointError(f"{work} holds no thinker.pt; the stage thinker makes it")
    learner = new_learner(work_vocabulary(work), 0)
    load_average(work / "thinker.pt", learner.thinker)
    build_constants(learner.thinker)
    learner.thinker.requires_grad_(False)
    return learner


def _keep_on(
    run: Run,
    learner: Learner,
    make: Callable[[int], list[Sheet]],
    path: Path,
    minutes: float,
    *,
    is_imagined: bool,
) -> None:
    batches: Prefetched[list[Sheet]] = Prefetched(make, run.step)

    def step() -> dict[str, float]:
        chance = random.Random(f"rows {run.seed} {run.step}")
        encode = (imagine if is_imagined else perceive)(learner, chance)
        return take_step(run, learner, next(batches), encode)

    try:
        keep_on(run, step, path, minutes=minutes, steps_per_log=20, steps_per_save=100)
    finally:
        batches.close()
