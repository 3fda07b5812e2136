"""A sound that tells where in it one is: a tone that rises by 1 kHz a second, for three seconds.

Whatever a receiver makes of it (delays, holes, stretched or repeated pieces), the pitch of a few
milliseconds still says which moment of the original is heard. So the delay of every piece can be
read from the sound itself, and which packets it came from, without trusting the receiver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clients.bench.measure import Pcm16

PERIOD_S = 3.0
LOW_HZ, HZ_PER_S = 500.0, 1_000.0
LEVEL = 9_000.0
WINDOW_S, HOP_S = 0.02, 0.01
MAX_EARLY_S = 0.1  # by how much clocks and estimates may be off the wrong way

_MIN_LEVEL = 300.0
_FFT_SIZE = 1 << 14
_EDGE_S = 0.04  # around the drop of the pitch, where a window holds two

Seconds = npt.NDArray[np.float64]


def samples(start: int, count: int, rate_hz: int) -> Pcm16:
    """[count] int16: the sweep from sample `start` on."""
    t = (np.arange(start, start + count) / rate_hz) % PERIOD_S
    phase = 2 * np.pi * (LOW_HZ * t + HZ_PER_S / 2 * t * t)
    return np.asarray(np.sin(phase) * LEVEL, np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Windows of what a receiver gave: when, and what moment of the sweep each one is.

    Args:
        at_s: when the end of the window was handed over. [num_windows]
        position_s: the moment of the original that the end of the window speaks of. [num_windows]
    """

    at_s: Seconds
    position_s: Seconds


def locate(pcm: Pcm16, at_s: Seconds, *, rate_hz: int, began_s: float) -> Heard:
    """Find the moments of a received sweep.

    Args:
        pcm: [num_samples] all that was received, in order.
        at_s: [num_samples] when each sample was handed over.
        began_s: when the sweep began, by the same clock; each moment is taken as the latest one of
            its pitch that had been sent by the time at which it was heard.
    """
    width, hop = round(WINDOW_S * rate_hz), round(HOP_S * rate_hz)
    if len(pcm) < width:
        return Heard(at_s=np.zeros(0), position_s=np.zeros(0))
    windows = np.lib.stride_tricks.sliding_window_view(pcm, width)[::hop].astype(np.float64)
    ends_s = np.lib.stride_tricks.sliding_window_view(at_s, width)[::hop, -1]
    is_loud = np.sqrt((windows**2).mean(axis=1)) >= _MIN_LEVEL
    windows, ends_s = windows[is_loud], ends_s[is_loud]
    in_period_s = (_pitch_hz(windows, rate_hz) - LOW_HZ) / HZ_PER_S + WINDOW_S / 2
    newest_s = ends_s - began_s + MAX_EARLY_S
    position_s = newest_s - (newest_s - in_period_s) % PERIOD_S
    is_sure = (in_period_s > _EDGE_S) & (in_period_s < PERIOD_S - _EDGE_S)
    return Heard(at_s=ends_s[is_sure], position_s=position_s[is_sure])


def is_telling(position_s: float) -> bool:
    """Whether a window that ends at this moment is surely one that `locate` can place."""
    return 2 * _EDGE_S < position_s % PERIOD_S < PERIOD_S - 2 * _EDGE_S


def _pitch_hz(windows: npt.NDArray[np.float64], rate_hz: int) -> Seconds:
    """[num_windows] the strongest frequency of each, between the bins by a parabola."""
    out = np.zeros(len(windows))
    shape = np.hanning(windows.shape[1])
    for index, window in enumerate(windows):
        power = np.log(np.abs(np.fft.rfft(window * shape, _FFT_SIZE)) + 1e-9)
        peak = int(np.clip(power.argmax(), 1, len(power) - 2))
        before, here, after = power[peak - 1 : peak + 2]
        bend = before - 2 * here + after
        offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
        out[index] = (peak + offset) * rate_hz / _FFT_SIZE
    return out
