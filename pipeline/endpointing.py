"""How long silence must last until a turn is over: from how complete it sounded, and how eager the
session is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.listening.end_of_turn import EndOfTurnJudge
from pipeline.messages import ENGINE_INPUT_HZ, Pcm
from pipeline.session_config import Eagerness, TurnDetection

SURE = 0.8  # probability of the judge from which no more than the shortest silence is waited for
LEAD_MS = 400  # a reply is begun so long before the end of a turn: more than most engines need
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


def needed_silence_ms(settings: TurnDetection, judge: EndOfTurnJudge, heard: Pcm) -> int:
    """The silence that ends a turn, judged where the settings want that. heard: see the judge."""
    if settings.eagerness is None:
        return settings.silence_duration_ms
    return wait_ms(judge.probability(heard), settings.eagerness)


@dataclass(slots=True, kw_only=True)
class Pause:
    """Silence that may be the end of a turn. `end_sample`: where it will be, `withheld`: the sound
    since, `is_speculated`: whether a reply was begun, or none is wanted.
    """

    end_sample: int
    is_speculated: bool
    withheld: list[Pcm] = field(default_factory=list)

    def is_due(self, now_sample: int) -> bool:
        """Whether it is time to begin a reply; once. What is begun sooner than it can be needed is
        more often in vain.
        """
        lead_samples = LEAD_MS * ENGINE_INPUT_HZ // 1000
        if self.is_speculated or now_sample < self.end_sample - lead_samples:
            return False
        self.is_speculated = True
        return True
