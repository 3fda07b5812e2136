"""Speech said faster or slower at the same pitch.

Streaming: any chunking gives the same samples, and n samples in become round(n / speed) out.

Waveform similarity overlap-add (Verhelst and Roelands, 1993): the output is made of segments of
12 ms that are taken from the input at `speed` times their distance. Each is moved by up to 8 ms to
where it goes on best from what was said last, and is blended with that. Sample k of the output thus
speaks of about input sample k * speed.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm, Pcm16

MIN_SPEED, MAX_SPEED = 0.25, 4.0
SEGMENT_SAMPLES = ENGINE_OUTPUT_HZ * 12 // 1000
MAX_SHIFT_SAMPLES = ENGINE_OUTPUT_HZ * 8 // 1000  # to and fro that is a period of the lowest voices

_FADE_IN = np.sin(np.linspace(0, np.pi / 2, SEGMENT_SAMPLES, endpoint=False)) ** 2
_SILENCE_ENERGY = 1e-6 * SEGMENT_SAMPLES  # -60 dB of full scale: nothing to line up with


class TimeStretch:
    """One stream of 24 kHz speech.

    Args:
        speed: above 1 is faster.
    """

    def __init__(self, speed: float) -> None:
        assert MIN_SPEED <= speed <= MAX_SPEED, speed
        self._speed = speed
        # a segment and how it goes on; where speed is high, more input than that makes one
        self._reach = max(MAX_SHIFT_SAMPLES + 2 * SEGMENT_SAMPLES, ceil(SEGMENT_SAMPLES * speed))
        self._kept: Pcm = np.zeros(0, np.float32)  # the input from `_kept_from` on
        self._kept_from = 0
        self._tail: Pcm | None = None  # how the input goes on behind the last segment
        self._num_in = 0
        self._num_segments = 0
        self._num_out = 0

    def push(self, pcm: Pcm16) -> Pcm16:
        """Take more speech; returns what is ready, perhaps nothing.

        Speed 1 passes it through untouched.
        """
        if self._speed == 1:
            return pcm
        self._num_in += len(pcm)
        self._kept = np.concatenate([self._kept, pcm.astype(np.float32) / 32768.0])
        return self._take(self._segments())

    def flush(self) -> Pcm16:
        """The rest; the stream is over afterwards."""
        if self._speed == 1 or not self._num_in:
            return np.zeros(0, np.int16)
        num_left = round(self._num_in / self._speed) - self._num_out
        num_segments = -(-num_left // SEGMENT_SAMPLES)
        # the last segments reach over the end, into silence
        silence = np.zeros(4 * SEGMENT_SAMPLES + 2 * MAX_SHIFT_SAMPLES, np.float32)
        self._kept = np.concatenate([self._kept, silence])
        rest: Pcm16 = self._take([self._next() for _ in range(num_segments)])[:num_left]
        return rest

    def _segments(self) -> list[Pcm]:
        ready = []
        while self._nominal + self._reach <= self._num_in:
            ready.append(self._next())
        return ready

    @property
    def _nominal(self) -> int:
        """Where in the input the next segment would begin without a shift."""
        return round(self._num_segments * SEGMENT_SAMPLES * self._speed)

    def _next(self) -> Pcm:
        nominal = self._nominal
        first = max(0, nominal - MAX_SHIFT_SAMPLES)
        self._forget_before(first)
        area = self._kept[: nominal - first + MAX_SHIFT_SAMPLES + SEGMENT_SAMPLES]
        if self._tail is None:
            start, segment = 0, area[:SEGMENT_SAMPLES]
        else:
            start = _best_start(area, self._tail, without_shift=nominal - first)
            fresh = area[start : start + SEGMENT_SAMPLES]
            segment = (self._tail * (1 - _FADE_IN) + fresh * _FADE_IN).astype(np.float32)
        self._tail = self._kept[start + SEGMENT_SAMPLES : start + 2 * SEGMENT_SAMPLES].copy()
        self._num_segments += 1
        return segment

    def _forget_before(self, position: int) -> None:
        self._kept = self._kept[position - self._kept_from :]
        self._kept_from = position

    def _take(self, segments: list[Pcm]) -> Pcm16:
        if not segments:
            return np.zeros(0, np.int16)
        out: Pcm16 = np.clip(np.concatenate(segments) * 32768.0, -32768, 32767).astype(np.int16)
        self._num_out += len(out)
        return out


def _best_start(area: Pcm, tail: Pcm, *, without_shift: int) -> int:
    """Where in `area` a segment begins that resembles `tail` most (normalised correlation)."""
    if float(tail @ tail) < _SILENCE_ENERGY:
        return without_shift
    energies = np.concatenate([[0.0], np.cumsum(area.astype(np.float64) ** 2)])
    energy = energies[SEGMENT_SAMPLES:] - energies[:-SEGMENT_SAMPLES]
    likeness = np.correlate(area, tail, "valid") / np.sqrt(energy + _SILENCE_ENERGY)
    return int(np.argmax(likeness))
