"""WAV files of 16-bit mono samples, and resampling of whole clips: the recipe's plain tools."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from models.content import Pcm


def read_wav(path: Path) -> tuple[Pcm, int]:
    """Samples of -1..1 and their rate in Hz."""
    with wave.open(str(path)) as file:
        assert file.getsampwidth() == 2, path
        assert file.getnchannels() == 1, path
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return samples.astype(np.float32) / np.float32(32768), file.getframerate()


def write_wav(path: Path, pcm: Pcm, rate_hz: int) -> None:
    """Write samples of -1..1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes())


def resampled(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """The whole clip at another rate, by its spectrum."""
    if from_hz == to_hz or not len(pcm):
        return pcm
    length = round(len(pcm) * to_hz / from_hz)
    spectrum = np.fft.rfft(pcm)
    kept = np.zeros(length // 2 + 1, dtype=spectrum.dtype)
    count = min(len(kept), len(spectrum))
    kept[:count] = spectrum[:count]
    return (np.fft.irfft(kept, length) * (length / len(pcm))).astype(np.float32)


def trimmed(pcm: Pcm, rate_hz: int, *, margin_s: float = 0.02, floor: float = 0.01) -> Pcm:
    """Without the silence at both ends, but for a margin. All silence stays as it is."""
    loud = np.flatnonzero(np.abs(pcm) > floor * max(1e-6, float(np.abs(pcm).max())))
    if not len(loud):
        return pcm
    margin = round(margin_s * rate_hz)
    return pcm[max(0, loud[0] - margin) : loud[-1] + 1 + margin]
