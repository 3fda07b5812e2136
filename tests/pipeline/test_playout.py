"""The paced output: order, exact counts, cuts, underruns."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pipeline.playout import FADE_SAMPLES, MAX_LEAD_SAMPLES, MAX_QUEUED_SAMPLES, Playout


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def playout(told: list[str]) -> Playout:
    return Playout(
        on_started=lambda r: told.append(f"started {r}"),
        on_stopped=lambda r: told.append(f"stopped {r}"),
    )


def ramp(count: int, first: int = 1) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.int16)


def test_plays_in_order_whatever_the_sizes(playout: Playout, told: list[str]) -> None:
    for chunk in np.split(ramp(1000), [7, 300, 301, 900]):
        playout.write("a", chunk)
    playout.finish("a")
    out = np.concatenate([playout.read(count) for count in (1, 480, 0, 480, 39)])
    np.testing.assert_array_equal(out, ramp(1000))
    assert told == ["started a", "stopped a"]
    assert (playout.played_samples("a"), playout.num_underruns) == (1000, 0)
    assert not playout.read(10).any()


def test_two_replies_follow_each_other_inside_one_packet(playout: Playout, told: list[str]) -> None:
    playout.write("a", ramp(100))
    playout.finish("a")
    playout.write("b", ramp(100, 101))
    np.testing.assert_array_equal(playout.read(200), ramp(200))
    assert told == ["started a", "stopped a", "started b"]
    playout.finish("b")
    assert told[-1] == "stopped b"


def test_underruns_are_counted_inside_a_reply_only(playout: Playout) -> None:
    playout.read(480)
    playout.write("a", ramp(100))
    out = playout.read(480)
    assert out[:100].all()
    assert not out[100 + FADE_SAMPLES :].any()
    playout.read(480)
    assert playout.num_underruns == 2
    playout.finish("a")
    playout.read(480)
    assert playout.num_underruns == 2
    assert playout.played_samples("a") == 100


def test_clear_is_immediate_exact_and_soft(playout: Playout, told: list[str]) -> None:
    playout.write("a", np.full(5000, 1000, np.int16))
    playout.read(480)
    playout.read(123)
    assert playout.clear() == ("a", 603)
    out = playout.read(480)
    assert 0 < out[0] <= 1000
    assert (np.diff(out[:FADE_SAMPLES].astype(int)) <= 0).all()
    assert not out[FADE_SAMPLES:].any()
    assert playout.played_samples("a") == 603
    playout.write("a", ramp(100))  # what was still on its way when the reply was cut
    assert not playout.read(480).any()
    playout.write("b", ramp(10))
    assert playout.read(10).all()
    assert told == ["started a", "started b"]


def test_clear_of_what_was_not_heard_yet(playout: Playout, told: list[str]) -> None:
    assert playout.clear() is None
    playout.write("a", ramp(100))
    assert playout.clear() is None
    assert not playout.read(480).any()
    assert told == []


async def test_a_full_queue_makes_the_writer_wait(playout: Playout) -> None:
    playout.write("a", np.zeros(MAX_QUEUED_SAMPLES, np.int16))
    await asyncio.wait_for(playout.wait_for_room(), 1)
    playout.write("a", np.zeros(10, np.int16))
    waiting = asyncio.ensure_future(playout.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    playout.read(480)
    await asyncio.wait_for(waiting, 1)
    playout.write("a", np.zeros(4800, np.int16))
    playout.clear()
    await asyncio.wait_for(playout.wait_for_room(), 1)


def tone(count: int) -> np.ndarray:
    return (np.sin(np.arange(count) / 9) * 12_000).astype(np.int16)


def test_a_gap_does_not_click(playout: Playout) -> None:
    speech = tone(4_000)
    steepest = int(np.abs(np.diff(speech.astype(int))).max())
    for cut in (480, 500, 960):  # at the edge of a packet and inside it
        name = f"reply {cut}"
        playout.write(name, speech[:cut])
        parts = [playout.read(480) for _ in range(4)]
        playout.write(name, speech[cut:])
        playout.finish(name)
        parts += [playout.read(480) for _ in range(12)]
        out = np.concatenate(parts).astype(int)
        edge = np.abs(np.diff(out[: 4 * 480 + 960]))
        assert edge.max() <= 2 * steepest
        assert not out[cut + FADE_SAMPLES : 4 * 480].any()
        assert playout.played_samples(name) == 4_000


def test_the_lead_grows_by_a_gap_and_shrinks_without(playout: Playout, told: list[str]) -> None:
    assert playout.lead_samples == 0
    playout.write("a", tone(960))
    assert playout.read(480).any(), "the first reply sounds at once"
    for _ in range(3):
        playout.read(480)
    playout.write("a", tone(960))
    playout.finish("a")
    for _ in range(3):
        playout.read(480)
    assert playout.lead_samples == 2 * 480, "the gap was two packets long"

    playout.write("b", tone(480))
    assert not playout.read(480).any(), "less than the lead is kept"
    assert told[-1] == "stopped a"
    playout.write("b", tone(480))
    assert playout.read(480).any()
    underruns = playout.num_underruns
    playout.finish("b")
    playout.read(480)
    assert (playout.lead_samples, playout.num_underruns) == (480, underruns)
    for name in ("c", "d"):
        playout.write(name, tone(480))
        playout.finish(name)
        assert playout.read(480).any(), "a finished reply waits for nothing"
    assert playout.lead_samples == 0


def test_the_lead_has_a_bound(playout: Playout) -> None:
    playout.write("a", tone(480))
    for _ in range(100):
        playout.read(480)
    playout.write("a", tone(480))
    playout.read(480)
    assert playout.lead_samples == MAX_LEAD_SAMPLES


def test_a_cut_inside_a_gap_is_silent(playout: Playout) -> None:
    playout.write("a", tone(480))
    for _ in range(50):
        playout.read(480)
    playout.write("a", tone(480))
    playout.finish("a")
    playout.read(480)
    playout.write("b", tone(480))
    playout.read(480)  # kept: less than the lead
    playout.clear()
    assert not playout.read(480).any()
