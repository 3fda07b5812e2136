"""What has to be exact, word for word and number for number, practised without much around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from models.recipe.dialogues import WEIGHTS, Drill


def _mostly(rest: float, **often: float) -> Mapping[str, float]:
    """These so often, any other usual skill `rest` times."""
    return {name: rest if weight else 0.0 for name, weight in WEIGHTS.items()} | often


SUMS = Drill(weights=_mostly(4, sum=50, repeat=20, echo=20, count=20), num=3)
SEEING = Drill(weights=_mostly(1, see=25), num=2)
ACTING = Drill(weights=_mostly(2, tools=20, sum=4, recall=0.5, remember=0), num=2, has_tools=True)
TALKING = Drill(weights=_mostly(2, small_talk=60, tell=8, remember=14, reject=14), num=4)
SERIES = Drill(weights=_mostly(0, look=1), num=1, is_terse=True)
TYPING = replace(ACTING, is_terse=True)
ADDING = Drill(weights=_mostly(1, sum=40), num=4, is_terse=True)  # in digits and signs as well
CHATTING = replace(TALKING, is_terse=True)
RECALLING = Drill(  # whatever was said in between
    weights=_mostly(1, tell=22, remember=8, recall=3, sum=14, count=6), num=6, is_terse=True
)
LONG = Drill(weights=_mostly(4, small_talk=30, tell=16, remember=10, sum=12), num=11)
LONG_ACTING = Drill(
    weights=_mostly(2, tools=8, small_talk=40, tell=12, recall=2), num=9, has_tools=True
)
DRILLS: tuple[Drill, ...] = (
    *(SUMS, SERIES, SEEING, RECALLING, ACTING, LONG, RECALLING, CHATTING),
    *(SERIES, RECALLING, LONG_ACTING, ADDING, RECALLING, TALKING, SEEING, TYPING),
)
