"""The stage that trains the vision encoder alone over a work folder."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from models.recipe.learner import work_learner
from models.recipe.prefetch import Prefetched
from models.recipe.run import Effort, Run, keep_on
from models.recipe.sheets import Grid
from models.recipe.sight import GRIDS_PER_STEP, PACE, random_grid, relit, take_step

NEW_PER_STEP = 12  # the others were seen before: to draw one takes as long as to learn from it
NUM_KEPT = 1500


def train_sight(work: Path, seed: int, effort: Effort) -> None:
    """Go on with the vision encoder."""
    learner = work_learner(work, seed)
    run = Run.new(learner.thinker.visual, PACE, seed)
    path = work / "sight.pt"
    if path.exists():
        run.load(path)

    @lru_cache(maxsize=NUM_KEPT + NEW_PER_STEP)
    def grid(index: int) -> Grid:
        return random_grid(random.Random(f"sight {seed} {index}"))

    def make(step: int) -> list[Grid]:
        chance = random.Random(f"sight {seed} step {step}")
        first = step * NEW_PER_STEP
        made = [grid(first + k) for k in range(NEW_PER_STEP)]
        before = range(max(0, first - NUM_KEPT), first + NEW_PER_STEP)
        again = GRIDS_PER_STEP - NEW_PER_STEP
        return made + [relit(grid(index), chance) for index in chance.choices(before, k=again)]

    batches = Prefetched(make, run.step)
    try:
        keep_on(
            run,
            lambda: take_step(run, learner, next(batches)),
            path,
            effort=effort,
            steps_per_log=25,
            steps_per_save=200,
        )
    finally:
        batches.close()
