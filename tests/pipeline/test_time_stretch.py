"""Speed: exact length, same pitch, no clicks, any chunking the same; speech stays understood."""

from __future__ import annotations

import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import Pcm16
from pipeline.time_stretch import TimeStretch

RATE_HZ = 24_000
SPEEDS = (0.25, 0.5, 0.8, 1.25, 1.5, 3.0, 4.0)
QUESTION = Path(__file__).parents[2] / "clients/bench/question.wav"


def stretched(pcm: Pcm16, speed: float, cuts: list[int] | None = None) -> Pcm16:
    stream = TimeStretch(speed)
    parts = [stream.push(part) for part in np.split(pcm, sorted(cuts or []))]
    return np.concatenate([*parts, stream.flush()])


def tone(hz: float, seconds: float = 1.0) -> Pcm16:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (12_000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def speech() -> Pcm16:
    with wave.open(str(QUESTION)) as source:
        assert source.getframerate() == 16_000
        pcm = np.frombuffer(source.readframes(source.getnframes()), "<i2").astype(np.float32)
    at = np.arange(len(pcm) * 3 // 2) * 2 / 3
    return np.interp(at, np.arange(len(pcm)), pcm).astype(np.int16)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SPEEDS), st.lists(st.integers(0, 24_000), max_size=8), st.integers(0, 9))
def test_any_chunking_gives_the_same_samples(speed: float, cuts: list[int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(-9_000, 9_000, 24_000).astype(np.int16)
    np.testing.assert_array_equal(stretched(noise, speed, cuts), stretched(noise, speed))


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("num_samples", [1, 1_920, 24_001])
def test_the_length_is_exact(speed: float, num_samples: int) -> None:
    assert len(stretched(np.ones(num_samples, np.int16), speed)) == round(num_samples / speed)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("hz", [80.0, 110.0, 440.0, 1_000.0])
def test_a_tone_keeps_pitch_and_loudness_and_does_not_click(speed: float, hz: float) -> None:
    out = stretched(tone(hz), speed).astype(np.float64)
    inner = out[2_400:-2_400]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), 1 << 18))
    assert abs(np.argmax(spectrum) * RATE_HZ / (1 << 18) - hz) < 0.01 * hz
    assert abs(np.sqrt((inner**2).mean()) / (12_000 / np.sqrt(2)) - 1) < 0.05
    steepest = 12_000 * 2 * np.pi * hz / RATE_HZ
    assert np.abs(np.diff(inner)).max() < 1.3 * steepest


def test_speed_one_is_untouched_and_nothing_stays_nothing() -> None:
    np.testing.assert_array_equal(stretched(tone(440), 1.0), tone(440))
    assert not len(stretched(np.zeros(0, np.int16), 1.5))


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 1.5])
def test_speech_keeps_its_sounds_at_their_time(speed: float) -> None:
    """The loudness of each moment of the output is that of the input at `speed` times it."""
    pcm = speech()
    before, after = loudness(pcm), loudness(stretched(pcm, speed))
    at = np.arange(len(after)) * speed
    wanted = np.interp(at, np.arange(len(before)), before)
    assert np.corrcoef(wanted, after)[0, 1] > 0.95


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 1.5])
def test_speech_keeps_its_colour(speed: float) -> None:
    """The long-term spectrum stays where it is: played faster by resampling it would move."""
    pcm = speech()
    wanted = colour(pcm)
    off_db = np.abs(colour(stretched(pcm, speed)) - wanted).mean()
    resampled_off_db = np.abs(colour(faster(pcm, speed)) - wanted).mean()
    assert off_db < 2.0, "in bands of a third of an octave"
    assert off_db < resampled_off_db / 2


def faster(pcm: Pcm16, speed: float) -> Pcm16:
    at = np.arange(round(len(pcm) / speed)) * speed
    return np.interp(at, np.arange(len(pcm)), pcm).astype(np.int16)


def loudness(pcm: Pcm16) -> np.ndarray:
    """RMS of each 20 ms, smoothed over 60 ms."""
    blocks = pcm[: len(pcm) // 480 * 480].reshape(-1, 480).astype(np.float64)
    return np.convolve(np.sqrt((blocks**2).mean(axis=1)), np.ones(3) / 3, "same")


def colour(pcm: Pcm16) -> np.ndarray:
    """Mean power in bands of a third of an octave from 100 Hz to 4 kHz, in dB of the whole."""
    blocks = pcm[: len(pcm) // 2_048 * 2_048].reshape(-1, 2_048).astype(np.float64)
    power = (np.abs(np.fft.rfft(blocks * np.hanning(2_048), axis=1)) ** 2).mean(axis=0)
    edges = 100 * 2 ** (np.arange(17) / 3)
    bins = np.searchsorted(np.fft.rfftfreq(2_048, 1 / RATE_HZ), edges)
    bands = np.array([power[a:b].mean() for a, b in pairwise(bins)])
    return 10 * np.log10(bands / bands.sum())
