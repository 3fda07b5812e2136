"""Speech over a reply, in two steps: duck it at once, then decide whether it is an interruption.

Sans-I/O, on the media clock: `look` is asked once for each window of sound since the onset. The
reply is ducked from the onset on, held (silent, its place kept) from `HOLD_MS` on, and at the
latest after `DECIDE_MS` it is either stopped for good or goes on where it was. It does not go on
before `DISMISS_MS`: the first syllable of an interruption is too little to tell it by, and who is
spoken over for half a second more minds that more than a short gap. Once its words are told all
looks count, the newest most. Sound that was dismissed but does not end is looked at again now and
then: who really wants the floor goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pipeline.listening.interruption import InterruptionJudge, Kind
from pipeline.listening.network import log_odds
from pipeline.messages import Pcm
from pipeline.overhearing import Overhearing
from pipeline.turns import SAMPLES_PER_MS

FIRST_LOOK_MS = 96
HOLD_MS = 96
DISMISS_MS = 320
DECIDE_MS = 480
ENDED_MS = 64  # silence after which a short sound is judged as a whole
FORGET_MS = 256  # silence after which a dismissed sound is over
AGAIN_MS = 480  # between two looks at a sound that was dismissed and goes on
PERSISTENT_MS = (
    1_600  # who speaks on for so long wants the floor, unless it is surely somebody else
)
ASK_BEFORE_MS = 160  # its words are asked for so long before a sound is looked at again
ASKED_SAMPLES = 2_000 * SAMPLES_PER_MS
SOMEBODY_ELSE = 0.8
CERTAIN = 0.95
LIKELY = 0.5
# Where words are told: of a sound that is over, of one that lasts (few hums do), at a later look.
LIKELY_OVER, LIKELY_LASTING, LIKELY_AGAIN = 0.7, 0.5, 0.6
UNLIKELY = 0.06
FADING = 0.9  # weight of a look beside that of the next one

Verdict = Literal["open", "hold", "interruption", "dismiss", "over"]


class BargeIn:
    """One sound over a reply.

    Args:
        overhearing: is asked for its words, and told of no other sound meanwhile.
        onset_sample: where its first window of speech began.
    """

    def __init__(
        self, judge: InterruptionJudge, overhearing: Overhearing, onset_sample: int
    ) -> None:
        self._judge = judge
        self._overhearing = overhearing
        overhearing.begin()
        self._onset_sample = onset_sample
        self._is_held = False
        self._odds: list[float] = []  # of an interruption, at each look since words were told
        self._next_look_ms: int | None = None  # after it was dismissed

    @property
    def is_dismissed(self) -> bool:
        """Whether it counts as nothing to stop for, so far."""
        return self._next_look_ms is not None

    def look(
        self,
        pcm: Pcm,
        *,
        end_sample: int,
        speech_end_sample: int,
        usual_db: float,
        is_last: bool = False,
    ) -> Verdict:
        """What to do now. pcm: the sound from a little before its onset; `usual_db`: see
        `pipeline.listening.interruption`; `is_last`: it is over, no other look will come.
        """
        age_ms = (end_sample - self._onset_sample) // SAMPLES_PER_MS
        silence_ms = (end_sample - speech_end_sample) // SAMPLES_PER_MS
        if self._next_look_ms is None or age_ms >= self._next_look_ms - ASK_BEFORE_MS:
            self._overhearing.ask(pcm[-ASKED_SAMPLES:])
        if self._next_look_ms is not None:
            return self._look_again(pcm, age_ms, silence_ms, usual_db)
        if age_ms < FIRST_LOOK_MS:
            return "open"
        share = self._share(pcm, usual_db)
        if is_last or age_ms >= DECIDE_MS or not self._overhearing.is_awaited:
            is_over = silence_ms >= ENDED_MS or is_last
            if is_over or age_ms >= DECIDE_MS:
                likely = self._likely(LIKELY_OVER if is_over else LIKELY_LASTING)
                return "interruption" if share >= likely else self._dismiss(age_ms)
            if share >= CERTAIN:
                return "interruption"
            if share <= UNLIKELY and age_ms >= DISMISS_MS:
                return self._dismiss(age_ms)
        if age_ms >= HOLD_MS and not self._is_held:
            self._is_held = True
            return "hold"
        return "open"

    def _likely(self, by_words: float) -> float:
        return LIKELY if self._overhearing.newest is None else by_words

    def _share(self, pcm: Pcm, usual_db: float) -> float:
        """How likely it is an interruption: by all looks since it is known what is said."""
        share = self._kinds(pcm, usual_db)["interruption"]
        if self._overhearing.newest is None:
            return share
        self._odds.append(log_odds(share))
        weights = [FADING**age for age in reversed(range(len(self._odds)))]
        sums = sum(weight * odds for weight, odds in zip(weights, self._odds, strict=True))
        return 1 / (1 + math.exp(-sums / sum(weights)))

    def _kinds(self, pcm: Pcm, usual_db: float) -> Mapping[Kind, float]:
        reading = self._overhearing.newest
        return self._judge.kinds(pcm, usual_db=usual_db, reading=reading)

    def _dismiss(self, age_ms: int) -> Verdict:
        self._next_look_ms = age_ms + AGAIN_MS
        return "dismiss"

    def _look_again(self, pcm: Pcm, age_ms: int, silence_ms: int, usual_db: float) -> Verdict:
        assert self._next_look_ms is not None
        if silence_ms >= FORGET_MS:
            return "over"
        if age_ms < self._next_look_ms or silence_ms >= ENDED_MS:
            return "open"
        self._next_look_ms = age_ms + AGAIN_MS
        kinds = self._kinds(pcm, usual_db)
        is_persistent = age_ms >= PERSISTENT_MS and kinds["side_speech"] < SOMEBODY_ELSE
        is_likely = kinds["interruption"] >= self._likely(LIKELY_AGAIN)
        return "interruption" if is_likely or is_persistent else "open"
