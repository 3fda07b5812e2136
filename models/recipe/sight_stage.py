"""The stage that trains the vision encoder alone over a work folder."""

from __future__ import annotations

import random
from pathlib import Path

from models.recipe.learner import new_learner, work_vocabulary
from models.recipe.prefetch import Prefetched
from models.recipe.run import Run, keep_on
from models.recipe.sheets import Grid
from models.recipe.sight import GRIDS_PER_STEP, PACE, random_grid, take_step


def train_sight(work: Path, seed: int, minutes: float) -> None:
    """Go on with the vision encoder."""
    learner = new_learner(work_vocabulary(work), seed)
    run = Run.new(learner.thinker.visual, PACE, seed)
    path = work / "sight.pt"
    if path.exists():
        run.load(path)

    def make(step: int) -> list[Grid]:
        chance = random.Random(f"sight {seed} {step}")
        return [random_grid(chance) for _ in range(GRIDS_PER_STEP)]

    batches = Prefetched(make, run.step)
    try:
        keep_on(
            run,
            lambda: take_step(run, learner, next(batches)),
            path,
            minutes=minutes,
            steps_per_log=25,
            steps_per_save=200,
        )
    finally:
        batches.close()
