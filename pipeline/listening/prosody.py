"""What can be heard in the last seconds beside the words: loudness, pitch, voicing, colour, rate.

Plain numpy on short clips of 16 kHz: a few milliseconds for three seconds of sound. Level
is taken out of everything but `Frames.level_db`, so that a soft voice is judged as a loud one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.messages import ENGINE_INPUT_HZ, Pcm

Floats = np.ndarray[tuple[Any, ...], np.dtype[np.float32]]
Flags = np.ndarray[tuple[Any, ...], np.dtype[np.bool_]]

HOP = 160  # 10 ms
SIZE = 640  # 40 ms: two periods of the lowest voice
FFT = 1024  # longer than a window and the longest period: the autocorrelation does not wrap
NUM_BANDS = 16
MIN_F0_HZ = 65.0
MAX_F0_HZ = 420.0
VOICED = 0.45  # of the autocorrelation at zero
SPEECH_RANGE_DB = 30.0  # below the loudest frame nothing counts as speech
NOISE_MARGIN_DB = 6.0  # above the quietest frames neither
MIN_RANGE_DB = 12.0
FRAMES_PER_S = ENGINE_INPUT_HZ // HOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One value for each 10 ms.

    Attributes:
        level_db: [n] dB below full scale.
        f0: [n] log2 of the fundamental in Hz; meaningful where `voiced`.
        bands: [n, NUM_BANDS] log power of mel bands less the frame's own mean.
        loud: [n] near enough to the loudest frame and above the room's noise.
    """

    level_db: Floats
    f0: Floats
    voiced: Flags
    loud: Flags
    bands: Floats

    def __len__(self) -> int:
        return len(self.level_db)


def analyse(pcm: Pcm) -> Frames:
    """Frames of a clip; a clip shorter than a frame is padded. pcm: [num_samples] float32."""
    if len(pcm) < SIZE:
        pcm = np.pad(pcm, (SIZE - len(pcm), 0))
    cut = np.lib.stride_tricks.sliding_window_view(pcm, SIZE)[::HOP] * _window()
    power = np.square(np.abs(np.fft.rfft(cut, FFT))).astype(np.float32)
    level_db = 10 * np.log10(np.mean(np.square(cut), axis=1) / 0.375 + 1e-9)
    bands = np.log(power @ _mel() + 1e-7)
    strength, f0 = _pitch(power)
    loud = level_db > _floor(level_db)
    return Frames(
        level_db=level_db.astype(np.float32),
        f0=f0,
        voiced=(strength > VOICED) & loud,
        loud=loud,
        bands=(bands - bands.mean(axis=1, keepdims=True)).astype(np.float32),
    )


def _floor(level_db: Floats) -> float:
    peak = float(level_db.max())
    noise = float(np.quantile(level_db, 0.03)) + NOISE_MARGIN_DB
    return max(peak - SPEECH_RANGE_DB, min(noise, peak - MIN_RANGE_DB))


def _pitch(power: Floats) -> tuple[Floats, Floats]:
    """(strength, log2 Hz) of each frame's best period, from the autocorrelation."""
    correlation = np.fft.irfft(power, FFT)[:, : SIZE // 2 + 1]
    correlation = correlation / (correlation[:, :1] + 1e-9) / _window_correlation()
    low, high = int(ENGINE_INPUT_HZ / MAX_F0_HZ), int(ENGINE_INPUT_HZ / MIN_F0_HZ)
    searched = correlation[:, low:high]
    best = searched.max(axis=1)
    # the shortest period that is nearly as good: a multiple of it is always as good
    first = np.argmax(searched > 0.9 * best[:, None], axis=1)
    rows = np.arange(len(searched))
    while True:
        following = np.minimum(first + 1, searched.shape[1] - 1)
        climbs = searched[rows, following] > searched[rows, first]
        if not climbs.any():
            break
        first = np.where(climbs, following, first)
    period = first + low
    return best.astype(np.float32), np.log2(ENGINE_INPUT_HZ / period).astype(np.float32)


@functools.cache
def _window() -> Floats:
    return np.asarray(np.hanning(SIZE), np.float32)


@functools.cache
def _window_correlation() -> Floats:
    power = np.square(np.abs(np.fft.rfft(_window(), FFT)))
    correlation = np.fft.irfft(power, FFT)[: SIZE // 2 + 1]
    return np.asarray(np.maximum(correlation / correlation[0], 0.1), np.float32)


@functools.cache
def _mel() -> Floats:
    """[FFT / 2 + 1, NUM_BANDS] triangles between 80 Hz and 7 kHz."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (80.0, 7000.0))
    edges = 700 * (10 ** (np.linspace(low, high, NUM_BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(FFT, 1 / ENGINE_INPUT_HZ)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles / triangles.sum(axis=0), np.float32)
