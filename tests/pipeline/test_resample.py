"""Resampling: chunked equals whole, aligned, low delay, no aliases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInputError
from pipeline.messages import Pcm
from pipeline.resample import INPUT_RATES_HZ, Resampler, resample


def tone(hz: float, rate_hz: int, seconds: float = 0.5) -> Pcm:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(INPUT_RATES_HZ), st.lists(st.integers(0, 9000), max_size=8), st.integers(0))
def test_any_chunking_gives_the_same_samples(rate_hz: int, cuts: list[int], seed: int) -> None:
    pcm = np.random.default_rng(seed).uniform(-0.5, 0.5, 9000).astype(np.float32)
    stream = Resampler(in_hz=rate_hz, out_hz=16_000)
    chunks = [stream.push(chunk) for chunk in np.split(pcm, sorted(cuts))]
    np.testing.assert_array_equal(
        np.concatenate([*chunks, stream.flush()]), resample(pcm, in_hz=rate_hz, out_hz=16_000)
    )


@pytest.mark.parametrize("rate_hz", INPUT_RATES_HZ)
def test_output_is_aligned_and_lags_at_most_two_milliseconds(rate_hz: int) -> None:
    stream = Resampler(in_hz=rate_hz, out_hz=16_000)
    out = stream.push(tone(440, rate_hz))
    assert 0 <= 8000 - len(out) <= 32
    wanted = tone(440, 16_000)[: len(out)]
    np.testing.assert_allclose(out[100:-100], wanted[100:-100], atol=1e-3)


def test_what_16_khz_can_not_carry_is_removed() -> None:
    out = resample(tone(11_000, 48_000), in_hz=48_000, out_hz=16_000)
    assert np.sqrt(np.mean(out[200:-200] ** 2)) < 0.01


def test_up_for_retrieval() -> None:
    out = resample(tone(440, 16_000), in_hz=16_000, out_hz=24_000)
    np.testing.assert_allclose(out[200:-200], tone(440, 24_000)[200:-200], atol=1e-3)


def test_a_strange_rate_is_refused() -> None:
    with pytest.raises(BadInputError, match="22050"):
        Resampler(in_hz=22_050, out_hz=16_000)


def test_nothing_in_nothing_out() -> None:
    assert len(resample(np.zeros(0, np.float32), in_hz=48_000, out_hz=16_000)) == 0
