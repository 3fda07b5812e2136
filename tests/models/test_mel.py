"""Log-mel: equal to the published extractor, however the samples arrive."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import WhisperFeatureExtractor

from models.content import Pcm
from models.errors import RequestError
from models.qwen3_omni.mel import (
    SILENCE,
    LogMel,
    MelStream,
    mel_bank,
    normalize,
    num_final_frames,
    num_frames,
)

EXTRACTOR = WhisperFeatureExtractor(
    feature_size=128, sampling_rate=16_000, hop_length=160, n_fft=400, chunk_length=300
)
LOG_MEL = LogMel()


def reference(pcm: Pcm) -> Tensor:
    """Features as the published processor makes them of a single clip: [128, n]."""
    made = EXTRACTOR(
        [pcm], sampling_rate=16_000, return_tensors="pt", padding=True, truncation=False
    )
    features: Tensor = made["input_features"][0]
    return features


def noise(num_samples: int, level: float = 0.1, seed: int = 0) -> Pcm:
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def tone(num_samples: int) -> Pcm:
    return (0.5 * np.sin(np.arange(num_samples) * 2 * np.pi * 440 / 16_000)).astype(np.float32)


def silence(num_samples: int) -> Pcm:
    return np.zeros(num_samples, np.float32)


def uneven_clip() -> Pcm:
    """Noise with digital silence inside and a part 18 dB louder after it."""
    clip = noise(64_123)
    clip[20_000:30_000] = 0
    clip[40_000:41_000] *= 8
    return clip


CLIPS = {
    "noise": noise(16_000),
    "uneven": uneven_clip(),
    "tone": tone(20_000),
    "silence then tone": np.concatenate([silence(4_800), tone(12_345)]),
    "tone then silence": np.concatenate([tone(12_345), silence(4_800)]),
    "silence": silence(3_000),
    "overshoot": noise(3_000, level=1.0),
    "shortest": noise(201),
    "rest under 40": noise(320 + 39),
    "rest over 40": noise(320 + 41),
    "20 s": noise(320_000, seed=3),
}


def test_mel_bank_is_the_published_one() -> None:
    assert np.abs(mel_bank(128).T - EXTRACTOR.mel_filters).max() < 1e-8


@pytest.mark.parametrize("name", CLIPS)
def test_clip_equals_reference(name: str) -> None:
    features = LOG_MEL.clip(CLIPS[name])
    expected = reference(CLIPS[name])
    assert features.shape == expected.shape == (128, num_frames(len(CLIPS[name])))
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 6_000), max_size=12), length=st.integers(0, 6_000))
def test_any_cuts_give_the_whole_clip(cuts: list[int], length: int) -> None:
    pcm = noise(length)
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    stream = MelStream(LOG_MEL)
    parts = []
    for start, stop in pairwise(edges):
        parts.append(stream.push(pcm[start:stop]))
        assert stream.num_samples == stop
        assert stream.num_frames == num_final_frames(stop) == sum(p.shape[1] for p in parts)
    whole = LOG_MEL.raw_clip(pcm)
    got = torch.cat([*parts, stream.finish()], dim=1)
    torch.testing.assert_close(got, whole, atol=1e-5, rtol=0)
    assert stream.finished_peak() == pytest.approx(float(whole.max()) if length >= 160 else SILENCE)


def test_later_samples_change_no_final_frame() -> None:
    start = noise(5_000)
    one, other = MelStream(LOG_MEL), MelStream(LOG_MEL)
    assert torch.equal(one.push(start), other.push(start))
    frames = num_final_frames(5_000)
    ends = [LOG_MEL.raw_clip(np.concatenate([start, more])) for more in (tone(999), silence(2))]
    torch.testing.assert_close(ends[0][:, :frames], ends[1][:, :frames], atol=1e-5, rtol=0)


def test_finish_is_provisional() -> None:
    pcm = noise(4_000)
    stream = MelStream(LOG_MEL)
    first = stream.push(pcm[:1_000])
    assert stream.finish().shape[1] == 1_000 // 160 - first.shape[1]
    rest = stream.push(pcm[1_000:])
    got = torch.cat([first, rest, stream.finish()], dim=1)
    torch.testing.assert_close(got, LOG_MEL.raw_clip(pcm), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cut", [0, 100, 199, 200, 201, 1_234, 3_000])
def test_rollback_is_as_if_nothing_had_come(cut: int) -> None:
    pcm = noise(3_000)
    stream, straight = MelStream(LOG_MEL), MelStream(LOG_MEL)
    stream.push(pcm[:cut])
    straight.push(pcm[:cut])
    state = stream.copy_state()
    for seed in (1, 2):
        stream.push(noise(777, level=2.0, seed=seed))
        stream.finish()
        stream.restore(state)
    assert (stream.num_samples, stream.num_frames) == (cut, num_final_frames(cut))
    assert stream.peak == straight.peak
    assert torch.equal(stream.push(pcm[cut:]), straight.push(pcm[cut:]))
    assert torch.equal(stream.finish(), straight.finish())


def test_silence_before_speech_needs_the_floor() -> None:
    """Frames that become final before speech is heard: only a floor from earlier speech fits."""
    clip = np.concatenate([silence(4_800), noise(16_000)])
    expected = reference(clip)
    earlier = float(LOG_MEL.raw_clip(noise(16_000, seed=9)).max())
    streams = {floor: MelStream(LOG_MEL, peak_floor=floor) for floor in (SILENCE, earlier)}
    quiet = {}
    for floor, stream in streams.items():
        raw = stream.push(clip[:4_800])
        quiet[floor] = normalize(raw, stream.running_peak)
    count = quiet[SILENCE].shape[1]
    assert (quiet[SILENCE] - expected[:, :count]).abs().max() > 0.3
    assert (quiet[earlier] - expected[:, :count]).abs().max() < 0.1
    for stream in streams.values():
        stream.push(clip[4_800:])
        assert stream.running_peak == pytest.approx(max(stream.peak, stream.peak_floor))


def test_broken_samples_are_silence() -> None:
    clip, cleaned = noise(3_000), noise(3_000)
    clip[[5, 700, 2_999]] = [np.nan, np.inf, -np.inf]
    cleaned[[5, 700, 2_999]] = 0
    assert torch.equal(LOG_MEL.clip(clip), LOG_MEL.clip(cleaned))
    assert not np.isfinite(clip[5])  # the caller's array is left alone


def test_absurd_amplitudes_stay_finite() -> None:
    assert LOG_MEL.clip(np.full(3_000, 3e38, np.float32)).isfinite().all()


@pytest.mark.parametrize(
    "pcm", [np.zeros(400, np.int16), np.zeros((2, 400), np.float32), np.zeros(400)]
)
def test_other_formats_are_refused(pcm: Pcm) -> None:
    stream = MelStream(LOG_MEL)
    with pytest.raises(RequestError, match="float32"):
        stream.push(pcm)
    assert stream.num_samples == 0


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 161, 199, 200])
def test_shortest_clips(num_samples: int) -> None:
    """Under 201 samples the reference refuses; ours mirrors as far as it goes."""
    features = LOG_MEL.clip(noise(num_samples))
    assert features.shape == (128, num_samples // 160)
    assert features.isfinite().all()
