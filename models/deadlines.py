"""When each speaking reply runs dry, what work costs, and whether there is room for one more.

Measures for `models.scheduler` and the engine, which plan by them. Time is the engine's clock, in
seconds. A reply's listener is taken to play from the moment its first frame is known, without a
buffer, and to stand still while there is nothing to play: a frame that comes later than that is
late, and the next one's deadline counts from there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

OUTPUT_HZ = 24_000
FRAME_MARGIN_S = 0.04  # of a listener's slack, left for making the frame that is due
MIN_CHUNK_TOKENS = 32  # smaller chunks of prefill cost more than they spare anybody
LATE_FRAMES_SEEN = 100  # a window of eight seconds of one session's speech
MAX_LATE_SHARE = 0.2
MIN_SPEAKING = 4  # fewer sessions are never refused: a slow machine may be late for one alone


@dataclass(slots=True)
class PlayoutClock:
    """What one listener has been given and has played. Stands until `start`."""

    started_s: float | None = None
    num_samples: int = 0
    num_late: int = 0

    def start(self, now_s: float) -> None:
        """The listener gets what there is, and plays it."""
        if self.started_s is None:
            self.started_s = now_s

    def slack_s(self, now_s: float) -> float | None:
        """Speech that is left to play; negative: silent for so long. None before the start."""
        if self.started_s is None:
            return None
        return self.num_samples / OUTPUT_HZ - (now_s - self.started_s)

    def give(self, num_samples: int, now_s: float) -> bool:
        """Take in a frame; returns whether it came too late."""
        slack_s = self.slack_s(now_s)
        is_late = slack_s is not None and slack_s < 0.0 and self.num_samples > 0
        if is_late and self.started_s is not None and slack_s is not None:
            self.started_s -= slack_s
            self.num_late += 1
        self.num_samples += num_samples
        return is_late


class PrefillPace:
    """Seconds that a token of prefill takes here, learnt from the units of work themselves."""

    def __init__(self) -> None:
        self._token_s: float | None = None

    def learn(self, num_tokens: int, took_s: float) -> None:
        """Take in one prefill; short ones say little about the rest."""
        if num_tokens >= MIN_CHUNK_TOKENS:
            token_s = took_s / num_tokens
            known = self._token_s
            self._token_s = token_s if known is None else known + 0.3 * (token_s - known)

    def chunk(self, max_tokens: int, room_s: float | None) -> int:
        """Tokens of the next prefill, so that nobody who speaks runs dry meanwhile.

        `room_s`: the least speech that any of them has left; None: nobody speaks.
        """
        if room_s is None:
            return max_tokens
        if self._token_s is None or self._token_s <= 0.0:
            fits = MIN_CHUNK_TOKENS
        else:
            fits = int(max(0.0, room_s - FRAME_MARGIN_S) / self._token_s)
        return min(max_tokens, max(MIN_CHUNK_TOKENS, fits))


class BatchPace:
    """Seconds that the same work for several replies at once takes here, for each kind of work and
    each number of replies, learnt from the work itself.
    """

    def __init__(self) -> None:
        self._took_s: dict[tuple[str, int], float] = {}

    def learn(self, kind: str, size: int, took_s: float) -> None:
        """Take in one batch of `size` replies."""
        known = self._took_s.get((kind, size))
        self._took_s[kind, size] = took_s if known is None else known + 0.3 * (took_s - known)

    def cost_s(self, kind: str, size: int) -> float | None:
        """What a batch will take, rather too much than too little: as long as the next larger one
        that is known, or in proportion to the next smaller one. None: nothing is known.
        """
        sizes = sorted(known for name, known in self._took_s if name == kind)
        larger = next((known for known in sizes if known >= size), None)
        if larger is not None:
            return self._took_s[kind, larger]
        return self._took_s[kind, sizes[-1]] * size / sizes[-1] if sizes else None


class Admission:
    """Whether the sessions that speak are served in time, so that one more may come."""

    def __init__(self) -> None:
        self._late: deque[bool] = deque(maxlen=LATE_FRAMES_SEEN)

    def note(self, *, is_late: bool) -> None:
        """Take in a frame of any session."""
        self._late.append(is_late)

    def refusal(self, num_speaking: int) -> str | None:
        """Why no further session is taken now; None: it is."""
        seen = len(self._late)
        if num_speaking < MIN_SPEAKING or seen < LATE_FRAMES_SEEN:
            return None
        share = sum(self._late) / seen
        if share <= MAX_LATE_SHARE:
            return None
        return (
            f"the engine is at its limit: {num_speaking} sessions are being spoken to and"
            f" {share:.0%} of their speech comes late; try again later"
        )
