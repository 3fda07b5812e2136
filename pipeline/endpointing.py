"""How long silence must last until a turn is over: from how complete it sounded, and how eager the
session is.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.session_config import Eagerness

SURE = 0.8  # probability of the judge from which no more than the shortest silence is waited for
DOUBTFUL = 0.2  # below: the longest


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Silence that ends a turn that sounded complete, and one that did not; milliseconds."""

    sure_ms: int
    doubtful_ms: int


WAITS: dict[Eagerness, Waits] = {
    "low": Waits(sure_ms=384, doubtful_ms=3_000),
    "medium": Waits(sure_ms=192, doubtful_ms=1_200),
    "high": Waits(sure_ms=160, doubtful_ms=600),
    "auto": Waits(sure_ms=192, doubtful_ms=1_200),
}


def wait_ms(probability: float, eagerness: Eagerness) -> int:
    """The silence to wait for. `probability`: that the turn is complete."""
    waits = WAITS[eagerness]
    share = (probability - DOUBTFUL) / (SURE - DOUBTFUL)
    share = min(1.0, max(0.0, share))
    ratio: float = (waits.sure_ms / waits.doubtful_ms) ** share
    return round(waits.doubtful_ms * ratio)
