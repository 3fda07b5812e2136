"""Microphone samples on their way in.

One rate, less noise if that is wanted, whole windows, and the last moments before now kept.

Counts two things: the input clock (milliseconds of everything appended, exact at the sender's
rate) and positions in samples at 16 kHz. Knows neither speech nor turns. Bound: holds one partial
window, what the noise suppressor holds back, and `max_kept_samples` of the past.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.messages import ENGINE_INPUT_HZ, Pcm
from pipeline.noise import NoiseSuppressor, max_suppression_db
from pipeline.resample import Resampler, check_rate
from pipeline.session_config import NoiseReduction, TurnDetection

CONFIRM_MS = 300  # more than the turn machine ever takes to be sure of a beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Samples [start_sample, end_sample) of the input at 16 kHz."""

    pcm: Pcm
    start_sample: int

    @property
    def end_sample(self) -> int:
        """Just behind its last sample."""
        return self.start_sample + len(self.pcm)


class InputBuffer:
    """See the module's docstring.

    Args:
        window_samples: length of the windows that come out, at 16 kHz.
        max_kept_samples: how much of the past `since` can give back.
    """

    def __init__(self, *, window_samples: int, max_kept_samples: int) -> None:
        self.max_kept_samples = max_kept_samples
        self._window_samples = window_samples
        self._resampler: Resampler | None = None
        self._suppressor: NoiseSuppressor | None = None
        self._clock_s = Fraction(0)
        self._end_sample = 0
        self._partial: Pcm = np.zeros(0, np.float32)
        self._kept: deque[Window] = deque()
        self._num_kept = 0

    @property
    def clock_ms(self) -> float:
        """The input clock: milliseconds appended since the beginning."""
        return float(self._clock_s * 1000)

    @property
    def end_sample(self) -> int:
        """Position behind the last sample that came out."""
        return self._end_sample

    def count(self, num_samples: int, rate_hz: int) -> None:
        """Move the input clock on by what has arrived, before any of it comes out as windows.

        Raises BadInputError for a rate that is not supported.
        """
        check_rate(rate_hz)
        self._clock_s += Fraction(num_samples, rate_hz)

    def reduce_noise(self, wanted: NoiseReduction | None) -> None:
        """From now on; what an earlier wish holds back comes before."""
        if wanted is None:
            self._release()
            self._suppressor = None
        elif self._suppressor is None:
            self._suppressor = NoiseSuppressor(max_suppression_db(wanted))
        else:
            self._suppressor.max_suppression_db = max_suppression_db(wanted)

    def push(self, pcm: Pcm, rate_hz: int) -> Iterator[Window]:
        """Take samples (already counted); the windows that they complete come out one by one.

        A change of rate ends one stream and begins another one. Not-a-number becomes silence, the
        rest is clipped.
        """
        ready = self._resample(np.clip(np.nan_to_num(pcm, posinf=1, neginf=-1), -1, 1), rate_hz)
        if self._suppressor is not None:
            ready = self._suppressor.push(ready)
        self._partial = np.concatenate([self._partial, ready])
        while len(self._partial) >= self._window_samples:
            window, self._partial = np.split(self._partial, [self._window_samples])
            yield self._emit(window)

    def take_rest(self) -> Window | None:
        """What lies in the unfinished window, if anything; the next window begins behind it.

        With what the suppressor holds back that may be more than a window.
        """
        self._release()
        rest, self._partial = self._partial, np.zeros(0, np.float32)
        return self._emit(rest) if len(rest) else None

    def since(self, start_sample: int) -> Pcm:
        """The samples from a position up to now; from the oldest kept one where that is later."""
        parts = [
            window.pcm[max(0, start_sample - window.start_sample) :]
            for window in self._kept
            if window.end_sample > start_sample
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    # ------------------------------------------------------------------ parts
    def _release(self) -> None:
        """Take what the noise suppressor holds back."""
        if self._suppressor is not None:
            self._partial = np.concatenate([self._partial, self._suppressor.flush()])

    def _resample(self, pcm: Pcm, rate_hz: int) -> Pcm:
        pcm = pcm.astype(np.float32, copy=False)
        if self._resampler is not None and self._resampler.in_hz == rate_hz:
            return self._resampler.push(pcm)
        following = Resampler(in_hz=rate_hz, out_hz=ENGINE_INPUT_HZ)
        before = self._resampler.flush() if self._resampler else np.zeros(0, np.float32)
        self._resampler = following
        return np.concatenate([before, following.push(pcm)])

    def _emit(self, pcm: Pcm) -> Window:
        window = Window(pcm=pcm, start_sample=self._end_sample)
        self._end_sample = window.end_sample
        self._kept.append(window)
        self._num_kept += len(pcm)
        while self._num_kept - len(self._kept[0].pcm) >= self.max_kept_samples:
            self._num_kept -= len(self._kept.popleft().pcm)
        return window


def num_kept(settings: TurnDetection | None) -> int:
    """Samples of the past that a turn may begin with."""
    padding_ms = settings.prefix_padding_ms if settings else 0
    return (padding_ms + CONFIRM_MS) * ENGINE_INPUT_HZ // 1000
