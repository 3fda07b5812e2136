"""The adaptive jitter buffer: its laws, and how it does on made-up networks."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jitter import MAX_BEHIND, MAX_HELD, JitterBuffer, Lost, Piece, Received

PACKET = 960
PACKET_S = 0.02


def push(buffer: JitterBuffer, number: int, now_s: float, *, first: int = 0) -> None:
    """Packet `number` of a stream whose wire numbers begin at `first`."""
    buffer.push(
        sequence_number=(first + number) % 2**16,
        timestamp=(first * PACKET + number * PACKET) % 2**32,
        num_samples=PACKET,
        payload=number.to_bytes(4, "big"),
        now_s=now_s,
    )


def numbers(pieces: list[Piece]) -> list[int]:
    return [int.from_bytes(p.payload, "big") for p in pieces if isinstance(p, Received)]


@dataclass
class Outcome:
    """What came out of a simulated call."""

    buffer: JitterBuffer
    pieces: list[Piece] = field(default_factory=list)
    delays_s: dict[int, float] = field(default_factory=dict)


def simulate(arrivals: list[tuple[float, int]], *, skew: float = 0.0) -> Outcome:
    """Arrivals (seconds, packet number) in order of time; timers fire when they are due.

    `skew`: how much faster the sender's clock runs than ours.
    """
    outcome = Outcome(JitterBuffer())
    buffer = outcome.buffer

    def pop(now_s: float) -> None:
        for piece in buffer.pop(now_s):
            outcome.pieces.append(piece)
            for number in numbers([piece]):
                outcome.delays_s[number] = now_s - number * PACKET_S / (1 + skew)

    for now_s, number in sorted(arrivals):
        while buffer.due_s is not None and buffer.due_s < now_s:
            pop(buffer.due_s + 1e-9)
        push(buffer, number, now_s)
        pop(now_s)
    while buffer.due_s is not None:
        pop(buffer.due_s + 1e-9)
    return outcome


def jittery(
    count: int, rng: random.Random, *, loss: float, low_s: float, high_s: float
) -> list[tuple[float, int]]:
    return [
        (number * PACKET_S + rng.uniform(low_s, high_s), number)
        for number in range(count)
        if rng.random() >= loss
    ]


# ------------------------------------------------------------------------------- by hand
def test_packets_in_order_are_not_held_back() -> None:
    buffer = JitterBuffer()
    for number in range(3):
        push(buffer, number, number * PACKET_S)
        assert numbers(buffer.pop(number * PACKET_S)) == [number]
    assert buffer.due_s is None


def test_a_missing_packet_is_waited_for_then_told_with_the_one_behind_it() -> None:
    buffer = JitterBuffer()
    push(buffer, 0, 0.0)
    buffer.pop(0.0)
    push(buffer, 2, 0.04)
    assert buffer.pop(0.04) == []
    assert buffer.due_s is not None
    assert abs(buffer.due_s - 0.05) < 1e-6, "0.02 was its time, and 0.03 is the wait"
    lost, received = buffer.pop(0.0501)
    assert lost == Lost(timestamp=PACKET, num_samples=PACKET, following=(2).to_bytes(4, "big"))
    assert numbers([received]) == [2]
    push(buffer, 1, 0.06)
    assert buffer.pop(0.06) == []
    counts = buffer.counts
    assert (counts.played, counts.lost, counts.late, counts.doubled) == (2, 1, 1, 0)


def test_a_reordered_packet_costs_no_more_than_its_lateness() -> None:
    buffer = JitterBuffer()
    push(buffer, 0, 0.0)
    buffer.pop(0.0)
    push(buffer, 2, 0.041)
    assert buffer.pop(0.041) == []
    push(buffer, 1, 0.043)
    assert numbers(buffer.pop(0.043)) == [1, 2]
    push(buffer, 1, 0.044)
    assert buffer.counts.doubled == 1


def test_a_pause_of_the_sender_is_silence_and_no_loss() -> None:
    buffer = JitterBuffer()
    push(buffer, 0, 0.0)
    buffer.pop(0.0)
    buffer.push(
        sequence_number=1, timestamp=5 * PACKET, num_samples=PACKET, payload=b"x", now_s=0.1
    )
    silence, _ = buffer.pop(0.1)
    assert silence == Lost(timestamp=PACKET, num_samples=4 * PACKET, is_silence=True)
    assert buffer.counts.lost == 0


def test_a_sender_that_begins_anew() -> None:
    buffer = JitterBuffer()
    for number in (100, 101, 30_000, 30_001):
        push(buffer, number, number * PACKET_S)
        assert numbers(buffer.pop(number * PACKET_S)) == [number]
    assert buffer.counts.lost == 0


# ------------------------------------------------------------------------------- laws
@given(
    first=st.integers(0, 2**16 - 1),
    delays_ms=st.lists(st.none() | st.integers(0, 400), min_size=2, max_size=120),
    doubled=st.sets(st.integers(0, 119), max_size=20),
)
def test_in_order_once_and_without_a_hole_in_time(
    first: int, delays_ms: list[int | None], doubled: set[int]
) -> None:
    events = [
        (number * PACKET_S + delay_ms / 1000 + again / 100, number)
        for number, delay_ms in enumerate(delays_ms)
        if delay_ms is not None
        for again in range(1 + (number in doubled))
    ]
    buffer, pieces = JitterBuffer(max_wait_s=0.1), []
    for now_s, number in sorted(events):
        while buffer.due_s is not None and buffer.due_s < now_s:
            pieces += buffer.pop(buffer.due_s + 1e-9)
        push(buffer, number, now_s, first=first)
        pieces += buffer.pop(now_s)
        assert buffer.due_s is None or buffer.due_s - now_s <= 0.1 + 0.4 + 1e-6
        assert len(buffer._held) <= MAX_HELD
    while buffer.due_s is not None:
        pieces += buffer.pop(buffer.due_s + 1e-9)
    played = numbers(pieces)
    assert played == sorted(set(played))
    counts = buffer.counts
    assert counts.played + counts.late + counts.doubled == len(events)
    ends = [piece.timestamp + piece.num_samples for piece in pieces]
    assert all(end == piece.timestamp for end, piece in zip(ends, pieces[1:], strict=False)), (
        "media time goes on without hole or overlap"
    )


@given(drift_ppm=st.sampled_from([-200, 200]))
def test_clocks_that_drift_apart_cost_nothing(drift_ppm: int) -> None:
    skew = drift_ppm / 1e6
    count = 3_000  # a minute: the clocks are 12 ms apart at its end
    rng = random.Random(1)
    arrivals = [
        (number * PACKET_S / (1 + skew) + rng.uniform(0.02, 0.03), number)
        for number in range(count)
    ]
    outcome = simulate(arrivals, skew=skew)
    assert outcome.buffer.counts.played == count
    assert outcome.buffer.target_s <= 0.03 + 1e-9
    late_s = [outcome.delays_s[number] for number in range(count - 500, count)]
    assert statistics.median(late_s) < 0.03


# ------------------------------------------------------------------------------- networks
def test_five_percent_loss_and_forty_ms_with_twenty_of_jitter() -> None:
    arrivals = jittery(5_000, random.Random(7), loss=0.05, low_s=0.02, high_s=0.06)
    outcome = simulate(arrivals)
    counts = outcome.buffer.counts
    assert counts.played / len(arrivals) >= 0.98
    assert counts.lost == 5_000 - counts.played
    added_s = [delay_s - 0.04 for delay_s in outcome.delays_s.values()]
    assert statistics.median(added_s) <= 0.03
    assert sorted(added_s)[int(0.99 * len(added_s))] <= 0.06


def test_the_wait_grows_at_once_and_shrinks_within_five_seconds_of_a_burst() -> None:
    rng = random.Random(3)
    arrivals = []
    for number in range(1_000):
        is_burst = 500 <= number < 550
        late_s = rng.uniform(0.05, 0.15) if is_burst else rng.uniform(0, 0.005)
        arrivals.append((number * PACKET_S + 0.02 + late_s, number))
    buffer = JitterBuffer()
    targets_s: dict[int, float] = {}
    for now_s, number in sorted(arrivals):
        push(buffer, number, now_s)
        buffer.pop(now_s)
        targets_s[number] = buffer.target_s
    assert targets_s[499] == 0.03
    assert targets_s[510] > 0.09
    assert targets_s[550 + 250] == 0.03


def test_a_hole_of_a_burst_ends_with_the_first_packet_behind_it() -> None:
    arrivals = [(number * PACKET_S, number) for number in range(100) if not 40 <= number < 55]
    outcome = simulate(arrivals)
    assert outcome.buffer.counts.lost == 15
    assert outcome.delays_s[55] <= 0.01 + 1e-6
    assert outcome.delays_s[99] == 0


def test_a_sender_that_begins_anew_a_little_before_is_heard_within_half_a_second() -> None:
    buffer = JitterBuffer()
    for number in range(600):
        push(buffer, number, number * PACKET_S)
        assert numbers(buffer.pop(number * PACKET_S)) == [number]
    heard = []
    for number in range(100):
        now_s = (600 + number) * PACKET_S
        push(buffer, number, now_s)
        heard += numbers(buffer.pop(now_s))
    assert heard == list(range(MAX_BEHIND, 100))


def test_packets_that_come_again_are_no_sender_that_begins_anew() -> None:
    buffer = JitterBuffer()
    heard = []
    for number in range(300):
        for again in range(max(0, number - MAX_BEHIND + 1), number + 1):
            push(buffer, again, number * PACKET_S)
        heard += numbers(buffer.pop(number * PACKET_S))
    assert heard == list(range(300))
