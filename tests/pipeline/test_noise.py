"""Noise reduction: noise goes down, a clean voice stays, at a short delay, however it is cut."""

from __future__ import annotations

import pickle
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_session import config, session
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import events
from pipeline.input_buffer import InputBuffer
from pipeline.messages import Pcm
from pipeline.noise import (
    HOP_SAMPLES,
    MAX_DELAY_SAMPLES,
    MAX_SUPPRESSION_DB,
    NoiseSuppressor,
    max_suppression_db,
)
from pipeline.session_config import NoiseReduction

RATE_HZ = 16_000
NEAR, FAR = NoiseReduction(place="near_field"), NoiseReduction(place="far_field")
QUESTION = Path(__file__).parents[2] / "clients/bench/question.wav"
SECOND = np.zeros(RATE_HZ, np.float32)


def speech() -> Pcm:
    """A question, a quarter as loud as recorded: about -26 dB of full scale."""
    with wave.open(str(QUESTION)) as source:
        assert source.getframerate() == RATE_HZ
        pcm = np.frombuffer(source.readframes(source.getnframes()), "<i2")
    return pcm.astype(np.float32) / (4 * 32768)


def hiss(num_samples: int, level_db: float, seed: int = 0) -> Pcm:
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    return (noise * 10 ** (level_db / 20)).astype(np.float32)


def fan(num_samples: int, level_db: float, seed: int = 0) -> Pcm:
    """Falls by 3 dB an octave."""
    spectrum = np.fft.rfft(hiss(num_samples, 0.0, seed))
    sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 50)), num_samples)
    return (sound / np.std(sound) * 10 ** (level_db / 20)).astype(np.float32)


def reduced(pcm: Pcm, by: NoiseReduction = NEAR, cuts: list[int] | None = None) -> Pcm:
    stream = NoiseSuppressor(max_suppression_db(by))
    parts = [stream.push(part) for part in np.split(pcm, sorted(cuts or []))]
    return np.concatenate([*parts, stream.flush()])


def ratio_db(wanted: Pcm, found: Pcm) -> float:
    error = wanted - found
    return float(10 * np.log10((wanted @ wanted) / (error @ error + 1e-20)))


def level_db(pcm: Pcm) -> float:
    return float(20 * np.log10(np.std(pcm)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 8_000), max_size=10), st.integers(0, 8_000))
def test_any_chunking_gives_the_same_samples(cuts: list[int], length: int) -> None:
    pcm = hiss(length, -30.0)
    whole = reduced(pcm)
    assert len(whole) == length
    np.testing.assert_array_equal(reduced(pcm, cuts=[min(c, length) for c in cuts]), whole)


@pytest.mark.parametrize(
    ("noise", "noise_db", "near_db", "far_db"),
    [
        (hiss, -46.0, 3.5, 3.0),
        (hiss, -36.0, 6.0, 6.0),
        (fan, -36.0, 2.0, 1.5),
        (fan, -26.0, 4.0, 4.0),
    ],
)
def test_speech_stands_out_further(
    noise: Callable[[int, float], Pcm], noise_db: float, near_db: float, far_db: float
) -> None:
    voice = speech()
    pcm = np.concatenate([SECOND, voice, SECOND])
    noisy = pcm + noise(len(pcm), noise_db)
    spoken, silent = slice(RATE_HZ, -RATE_HZ), slice(-RATE_HZ // 2, None)
    before = ratio_db(voice, noisy[spoken])
    near, far = reduced(noisy, NEAR), reduced(noisy, FAR)
    assert ratio_db(voice, near[spoken]) > before + near_db
    assert ratio_db(voice, far[spoken]) > before + far_db
    assert level_db(near[silent]) < level_db(noisy[silent]) - 7
    assert level_db(far[silent]) < level_db(near[silent]) - 1.5


@pytest.mark.parametrize("by", [NEAR, FAR])
@pytest.mark.parametrize("lead", [SECOND, SECOND[:0]])
def test_a_clean_voice_stays_as_it_is(by: NoiseReduction, lead: Pcm) -> None:
    pcm = np.concatenate([lead, speech()])
    assert ratio_db(pcm, reduced(pcm, by)) > 30


def test_without_strength_nothing_changes() -> None:
    pcm = hiss(5_000, -20.0)
    np.testing.assert_allclose(reduced(pcm, NoiseReduction(place="far_field", strength=0)), pcm)


def test_strength_has_an_end() -> None:
    assert max_suppression_db(NoiseReduction(place="near_field", strength=0.5)) == 6
    assert max_suppression_db(NoiseReduction(place="far_field", strength=1e9)) == MAX_SUPPRESSION_DB


def test_a_muted_microphone_does_not_unlearn_the_noise() -> None:
    stream = NoiseSuppressor(max_suppression_db(NEAR))
    stream.push(hiss(2 * RATE_HZ, -46.0))
    stream.push(np.zeros(10 * RATE_HZ, np.float32))
    after = stream.push(hiss(RATE_HZ // 2, -46.0, seed=1))
    assert level_db(after[1_600:]) < -46 - 10


def test_it_is_soon_there_and_keeps_nothing() -> None:
    stream = NoiseSuppressor(max_suppression_db(NEAR))
    pcm, num_out, sizes = hiss(10 * RATE_HZ, -40.0), 0, []
    for start in range(0, len(pcm), 320):
        num_out += len(stream.push(pcm[start : start + 320]))
        assert HOP_SAMPLES <= start + 320 - num_out <= MAX_DELAY_SAMPLES
        sizes.append(len(pickle.dumps(stream)))
    assert max(sizes[50:]) <= max(sizes[:50])


# ------------------------------------------------------------------------------- on its way in
def buffer(by: NoiseReduction | None = NEAR) -> InputBuffer:
    made = InputBuffer(window_samples=512, max_kept_samples=1_600)
    made.reduce_noise(by)
    return made


def push(into: InputBuffer, pcm: Pcm) -> list[Pcm]:
    into.count(len(pcm), RATE_HZ)
    return [window.pcm for window in into.push(pcm, RATE_HZ)]


def test_windows_are_those_of_the_suppressor() -> None:
    pcm = hiss(5_120, -30.0)
    noisy = buffer()
    windows = push(noisy, pcm)
    assert len(windows) == 9, "the tenth waits for what comes behind it"
    rest = noisy.take_rest()
    assert rest is not None
    np.testing.assert_array_equal(np.concatenate([*windows, rest.pcm]), reduced(pcm))


def test_it_is_switched_at_any_time_and_loses_nothing() -> None:
    changed = buffer(None)
    pcm = hiss(4_000, -30.0)
    out = push(changed, pcm[:1_000])
    changed.reduce_noise(NEAR)
    out += push(changed, pcm[1_000:2_000])
    changed.reduce_noise(FAR)
    out += push(changed, pcm[2_000:3_000])
    changed.reduce_noise(None)
    out += push(changed, pcm[3_000:])
    rest = changed.take_rest()
    assert rest is not None
    found = np.concatenate([*out, rest.pcm])
    assert len(found) == len(pcm)
    np.testing.assert_array_equal(found[:1_000], pcm[:1_000])
    np.testing.assert_array_equal(found[3_000:], pcm[3_000:])
    assert np.abs(found[1_000:3_000] - pcm[1_000:3_000]).max() > 1e-3


def test_what_was_taken_does_not_come_again() -> None:
    taken = buffer()
    push(taken, hiss(1_000, -20.0))
    taken.take_rest()
    assert max(np.abs(window).max() for window in push(taken, SECOND)) == 0


async def test_a_session_hears_less_noise() -> None:
    pcm = hiss(3 * RATE_HZ, -46.0)
    levels = []
    for by in (None, NEAR, FAR):
        async with session(settings=config(None, noise_reduction=by)) as it:
            await it.say(pcm)
            it.conversation.commit()
            (audio,) = it.one(events.ItemDone).item.content
            assert abs(len(audio.pcm) - len(pcm)) <= 1
            levels.append(level_db(audio.pcm[-RATE_HZ:]))
    assert levels[0] == pytest.approx(-46, abs=0.2)
    assert levels[1] < levels[0] - 10
    assert levels[2] < levels[1] - 4
