"""Microphone samples on their way in: clock, windows, the kept past."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInputError
from pipeline.input_buffer import InputBuffer
from pipeline.messages import Pcm


def buffer(kept: int = 1600) -> InputBuffer:
    return InputBuffer(window_samples=512, max_kept_samples=kept)


def push(into: InputBuffer, pcm: Pcm, rate_hz: int = 16_000) -> list[Pcm]:
    into.count(len(pcm), rate_hz)
    return [window.pcm for window in into.push(pcm, rate_hz)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6000), max_size=10), st.sampled_from([8_000, 16_000, 48_000]))
def test_any_chunking_gives_the_same_windows(cuts: list[int], rate_hz: int) -> None:
    pcm = np.random.default_rng(0).uniform(-1, 1, 6000).astype(np.float32)
    whole = push(buffer(), pcm, rate_hz)
    chunked = buffer()
    windows = [w for chunk in np.split(pcm, sorted(cuts)) for w in push(chunked, chunk, rate_hz)]
    np.testing.assert_array_equal(np.array(windows), np.array(whole))
    assert chunked.end_sample == 512 * len(whole)
    assert chunked.clock_ms == pytest.approx(6000 * 1000 / rate_hz)


def test_the_past_is_given_back_and_bounded() -> None:
    kept = buffer(kept=1500)
    pcm = np.arange(512 * 10, dtype=np.float32) / 10_000
    push(kept, pcm)
    np.testing.assert_array_equal(kept.since(512 * 9 + 7), pcm[512 * 9 + 7 :])
    assert 1500 <= len(kept.since(0)) < 1500 + 512
    np.testing.assert_array_equal(kept.since(0), pcm[-len(kept.since(0)) :])


def test_the_rest_of_a_window_can_be_taken() -> None:
    taken = buffer()
    assert len(push(taken, np.ones(700, np.float32))) == 1
    rest = taken.take_rest()
    assert rest is not None
    assert (rest.start_sample, len(rest.pcm)) == (512, 188)
    assert taken.take_rest() is None
    assert taken.end_sample == 700


def test_a_change_of_rate_loses_nothing() -> None:
    changed = buffer()
    push(changed, np.full(4800, 0.5, np.float32), 48_000)
    push(changed, np.full(2400, 0.5, np.float32), 24_000)
    changed.take_rest()
    assert changed.end_sample == pytest.approx(3200, abs=17)  # the second stream's last ms
    assert changed.clock_ms == 200


def test_wild_values_never_get_through() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 7.0] * 128, np.float32)
    (window,) = push(buffer(), wild)
    assert set(np.unique(window)) == {-1.0, 0.0, 1.0}


def test_a_strange_rate_is_refused() -> None:
    with pytest.raises(BadInputError):
        push(buffer(), np.zeros(10, np.float32), 11_025)
