"""How long silence must last until a turn is over: from how complete it sounded, and how eager the
session is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.listening.end_of_turn import EndOfTurnJudge
from pipeline.messages import ENGINE_INPUT_HZ, Pcm, Reading
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


@dataclass(slots=True, kw_only=True)
class Pause:
    """Silence that may be the end of a turn.

    Attributes:
        heard: the turn up to there, see the judge. speech_end_sample: where its speech ended.
        is_speculated: whether a reply was begun, or none is wanted.
        end_sample: where the turn will be over. withheld: the sound since.
    """

    heard: Pcm
    speech_end_sample: int
    is_speculated: bool
    end_sample: int = 0
    withheld: list[Pcm] = field(default_factory=list)

    def needed_ms(
        self, settings: TurnDetection, judge: EndOfTurnJudge, reading: Reading | None
    ) -> int:
        """The silence that ends the turn, judged where the settings want that; sets `end_sample`.

        reading: what the engine has read in `heard`, once it has.
        """
        needed_ms = settings.silence_duration_ms
        if settings.eagerness is not None:
            needed_ms = wait_ms(judge.probability(self.heard, reading), settings.eagerness)
        self.end_sample = self.speech_end_sample + needed_ms * ENGINE_INPUT_HZ // 1000
        return needed_ms

    def is_due(self, now_sample: int) -> bool:
        """Whether it is time to begin a reply; once. What is begun sooner than it can be needed is
        more often in vain.
        """
        lead_samples = LEAD_MS * ENGINE_INPUT_HZ // 1000
        if self.is_speculated or now_sample < self.end_sample - lead_samples:
            return False
        self.is_speculated = True
        return True
