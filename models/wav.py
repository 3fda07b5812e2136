"""WAV files for the offline commands: read as 16 kHz mono float32, write 16-bit at any rate.

Whole files only; live audio is resampled in `pipeline`. Reads PCM of 8, 16, 24 and 32 bits and any
number of channels (averaged).
"""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.content import Pcm, Pcm16
from models.errors import RequestError
from models.qwen3_omni.mel import SAMPLE_RATE_HZ

FILTER_ZERO_CROSSINGS = 32


def read_wav(path: Path) -> Pcm:
    """Samples of a WAV file: [num_samples] float32 in -1..1 at 16 kHz mono.

    Raises:
        RequestError: no such file, not a PCM WAV file, or no samples in it.
    """
    try:
        data = path.read_bytes()
        with wave.open(io.BytesIO(data)) as file:
            width, channels = file.getsampwidth(), file.getnchannels()
            rate_hz, raw = file.getframerate(), file.readframes(file.getnframes())
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except (OSError, wave.Error, EOFError) as error:
        why = str(error) or "it ends too early"
        raise RequestError(f"{path} is not a PCM WAV file: {why}") from None
    if width > 4:
        raise RequestError(f"{path} is not a PCM WAV file: {8 * width} bits a sample")
    samples = _decode(raw[: len(raw) // (width * channels) * width * channels], width)
    mono = samples.reshape(-1, channels).mean(axis=1, dtype=np.float32)
    if not len(mono) or rate_hz <= 0:
        raise RequestError(f"{path} holds no samples")
    return resample(mono, rate_hz, SAMPLE_RATE_HZ)


def write_wav(path: Path, pcm: Pcm16, rate_hz: int) -> None:
    """Write 16-bit mono.

    Raises:
        RequestError: the file can not be written.
    """
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm.astype("<i2").tobytes())
    try:
        path.write_bytes(written.getvalue())
    except OSError as error:
        raise RequestError(f"can not write {path}: {error}") from None


def _decode(raw: bytes, width: int) -> npt.NDArray[np.float32]:
    """Little-endian PCM of `width` bytes a sample -> -1..1."""
    if width == 1:  # the one unsigned format
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    padded = np.zeros((len(raw) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)


def resample(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """Band-limited resampling of a whole clip by a windowed sinc."""
    if from_hz == to_hz:
        return pcm
    ratio = to_hz / from_hz
    count = math.floor(len(pcm) * ratio)
    cutoff = min(1.0, ratio) * 0.95
    half_width = math.ceil(FILTER_ZERO_CROSSINGS / cutoff)
    padded = np.pad(pcm, (half_width, half_width + 1))
    offsets = np.arange(-half_width, half_width + 1)
    out = np.empty(count, np.float32)
    for start in range(0, count, 16_384):
        where = np.arange(start, min(count, start + 16_384)) / ratio
        left = np.floor(where).astype(np.int64)
        distance = (where - left)[:, None] - offsets  # [n, taps]
        window = np.cos(np.pi / 2 * np.clip(distance / (half_width + 1), -1, 1)) ** 2
        taps = cutoff * np.sinc(cutoff * distance) * window
        out[start : start + len(where)] = (padded[left[:, None] + offsets + half_width] * taps).sum(
            axis=1
        )
    return out
