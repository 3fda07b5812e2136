"""An adaptive jitter buffer for a listener: RTP packets in, in order out, sans-I/O.

Who listens (a voice detector, an encoder) needs order, not an even clock. So a packet whose turn it
is goes on at once, and only a *hole* costs time: later packets wait for the missing one until it is
later than packets have lately been, then the hole is given up and told as `Lost`, with the packet
behind it where that may carry a copy of it (Opus in-band FEC).

- Lateness of a packet: its transit time above the least of the last seconds. Clocks that drift
  apart move that least along; at 200 ppm it is off by 1 ms.
- The wait (`target_s`): the lateness that all but 2 % of the last three seconds' packets kept. So
  it follows a jump within four packets, and a burst is forgotten three seconds after it.

Bounds: no packet waits longer than `max_wait_s`; at most `MAX_HELD` are held, then a hole is given
up early. Nothing here reads a clock: the caller says when a packet came and what time it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_HELD = 64
MAX_JUMP = 1_000  # packets; what is further away comes from a sender that began anew
MAX_BEHIND = 25  # packets in a row that came before, half a second: so do those of a sender anew
MAX_HOLE_S = 2

_WINDOW_PACKETS = 150  # 3 s of 20 ms
_BASE_WINDOW_S = 2.5
_SPARE = 50  # one in this many may be later than the target
_MARGIN_S = 0.005  # of timers and scheduling
_SEQUENCE_BITS, _TIMESTAMP_BITS = 16, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A packet whose turn it is. `timestamp` and `num_samples` are in the stream's RTP clock;
    `timestamp` counts on over the wrap.
    """

    payload: bytes
    timestamp: int
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Sound that will not come; `following`: the packet behind it, if it came.

    `is_silence`: nothing was lost, the sender paused.
    """

    timestamp: int
    num_samples: int
    following: bytes | None = None
    is_silence: bool = False


Piece = Received | Lost


@dataclass(slots=True)
class JitterCounts:
    """Packets by their fate. Each that came is `played`, `late` or `doubled` (or still waits)."""

    played: int = 0
    lost: int = 0
    late: int = 0
    doubled: int = 0

    def __sub__(self, earlier: JitterCounts) -> JitterCounts:
        return JitterCounts(
            played=self.played - earlier.played,
            lost=self.lost - earlier.lost,
            late=self.late - earlier.late,
            doubled=self.doubled - earlier.doubled,
        )


class JitterBuffer:
    """See the module's docstring.

    Args:
        clock_hz: the stream's RTP clock.
        min_wait_s / max_wait_s: bounds of the wait for a missing packet.
    """

    def __init__(
        self, *, clock_hz: int = 48_000, min_wait_s: float = 0.03, max_wait_s: float = 0.2
    ) -> None:
        self.counts = JitterCounts()
        self._clock_hz = clock_hz
        self._min_wait_s = min_wait_s
        self._max_wait_s = max_wait_s
        self._restart()

    def _restart(self) -> None:
        self._held: dict[int, Received] = {}
        self._next: int | None = None
        self._next_timestamp = 0
        self._num_behind = 0
        self._given_up: deque[int] = deque(maxlen=512)
        self._lateness = _Lateness()
        self._target_s = self._min_wait_s

    # ------------------------------------------------------------------ what the caller does
    def push(
        self,
        *,
        sequence_number: int,
        timestamp: int,
        num_samples: int,
        payload: bytes,
        now_s: float,
    ) -> None:
        """Take a packet that came at `now_s`.

        `sequence_number` and `timestamp` are as on the wire (16 and 32 bits); `num_samples` is how
        much sound the payload holds, in the RTP clock.
        """
        if self._is_far(sequence_number) or self._num_behind >= MAX_BEHIND:
            self._restart()
        if self._next is None:
            self._next, self._next_timestamp = sequence_number, timestamp
        number = _unwrapped(sequence_number, self._next, _SEQUENCE_BITS)
        timestamp = _unwrapped(timestamp, self._next_timestamp, _TIMESTAMP_BITS)
        if number < self._next:
            self._count_behind(number)
        elif number in self._held:
            self.counts.doubled += 1
            return
        else:
            self._num_behind = 0
            self._held[number] = Received(
                payload=payload, timestamp=timestamp, num_samples=num_samples
            )
        late_s = self._lateness.add(now_s - timestamp / self._clock_hz, now_s)
        self._target_s = min(max(late_s + _MARGIN_S, self._min_wait_s), self._max_wait_s)

    def pop(self, now_s: float) -> list[Piece]:
        """All that can go on now, in order and without a hole in media time."""
        pieces: list[Piece] = []
        while self._held:
            assert self._next is not None
            packet = self._held.pop(self._next, None)
            if packet is not None:
                self._play(packet, pieces)
            elif now_s >= self._deadline_s() or len(self._held) > MAX_HELD:
                self._give_up(pieces)
            else:
                break
        return pieces

    @property
    def due_s(self) -> float | None:
        """When `pop` has something to say without a further packet; None: never."""
        return self._deadline_s() if self._held else None

    @property
    def target_s(self) -> float:
        """How much later than the quickest packets a missing one may come."""
        return self._target_s

    # ------------------------------------------------------------------ parts
    def _deadline_s(self) -> float:
        """When the next packet, which is missing, counts as lost."""
        due_s = self._next_timestamp / self._clock_hz + self._lateness.base_s
        return due_s + self._target_s

    def _is_far(self, sequence_number: int) -> bool:
        """A jump that no loss explains: the sender began anew."""
        if self._next is None:
            return False
        return abs(_unwrapped(sequence_number, self._next, _SEQUENCE_BITS) - self._next) > MAX_JUMP

    def _play(self, packet: Received, pieces: list[Piece]) -> None:
        assert self._next is not None
        pause = min(packet.timestamp - self._next_timestamp, MAX_HOLE_S * self._clock_hz)
        if pause > 0:
            start = packet.timestamp - pause
            pieces.append(Lost(timestamp=start, num_samples=pause, is_silence=True))
        pieces.append(packet)
        self.counts.played += 1
        self._next += 1
        self._next_timestamp = packet.timestamp + packet.num_samples

    def _give_up(self, pieces: list[Piece]) -> None:
        """The next packet is lost: one step of a hole, whose end is known by the first held one."""
        assert self._next is not None
        first = min(self._held)
        missing = first - self._next
        samples = max(0, self._held[first].timestamp - self._next_timestamp) // missing
        samples = min(samples, MAX_HOLE_S * self._clock_hz // missing)
        if samples:
            following = self._held[first].payload if missing == 1 else None
            lost = Lost(
                timestamp=self._next_timestamp, num_samples=samples, following=following or None
            )
            pieces.append(lost)
        self.counts.lost += 1
        self._given_up.append(self._next)
        self._next += 1
        self._next_timestamp += samples

    def _count_behind(self, number: int) -> None:
        if number in self._given_up:
            self._given_up.remove(number)
            self.counts.late += 1
        else:
            self.counts.doubled += 1
            self._num_behind += 1


class _Lateness:
    """Transit times of the last packets, above the least of the last seconds."""

    def __init__(self) -> None:
        self._transits_s: deque[float] = deque(maxlen=_WINDOW_PACKETS)
        self._least_s = self._least_before_s = float("inf")
        self._window_end_s: float | None = None

    @property
    def base_s(self) -> float:
        """The least transit time; it holds the unknown offset of the two clocks."""
        return min(self._least_s, self._least_before_s)

    def add(self, transit_s: float, now_s: float) -> float:
        """Take a packet's transit; the lateness that all but the latest few packets kept."""
        if self._window_end_s is None or now_s >= self._window_end_s:
            self._window_end_s = now_s + _BASE_WINDOW_S
            self._least_before_s, self._least_s = self._least_s, transit_s
        self._least_s = min(self._least_s, transit_s)
        self._transits_s.append(transit_s)
        spare = len(self._transits_s) // _SPARE
        return sorted(self._transits_s)[-1 - spare] - self.base_s


def _unwrapped(value: int, near: int, num_bits: int) -> int:
    """The number that is `value` modulo 2 ** num_bits and lies nearest to `near`."""
    size = 1 << num_bits
    ahead = (value - near) % size
    return near + (ahead - size if ahead >= size // 2 else ahead)
