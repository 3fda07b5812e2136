"""Sample rate conversion of mono speech.

Streaming, with state, any chunking giving the same samples.

libswresample (through PyAV) does the work: a polyphase low-pass whose output lags its input by
about 1 ms and is aligned with it (output sample k speaks of the moment k / out_hz). Equal rates
pass through untouched.
"""

from __future__ import annotations

import av
import numpy as np

from pipeline.errors import BadInputError
from pipeline.messages import Pcm

INPUT_RATES_HZ = (8_000, 16_000, 24_000, 44_100, 48_000)


class Resampler:
    """One stream from one rate to another.

    Raises:
        BadInputError: a rate that no transport of ours carries.
    """

    def __init__(self, *, in_hz: int, out_hz: int) -> None:
        check_rate(in_hz)
        check_rate(out_hz)
        self.in_hz = in_hz
        self.out_hz = out_hz
        self._swr = av.AudioResampler(format="flt", layout="mono", rate=out_hz)
        self._has_input = False

    def push(self, pcm: Pcm) -> Pcm:
        """Convert more samples.

        Pcm: [num_samples] float32; returns what is ready, perhaps nothing.
        """
        if self.in_hz == self.out_hz or not len(pcm):
            return pcm
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(pcm, dtype=np.float32)[None, :], format="flt", layout="mono"
        )
        frame.sample_rate = self.in_hz
        self._has_input = True
        return _join(self._swr.resample(frame))

    def flush(self) -> Pcm:
        """The last millisecond; the stream is over afterwards."""
        if not self._has_input:
            return np.zeros(0, np.float32)
        return _join(self._swr.resample(None))


def check_rate(rate_hz: int) -> None:
    """Refuse a rate that no transport of ours carries (BadInputError)."""
    if rate_hz not in INPUT_RATES_HZ:
        raise BadInputError(f"{rate_hz} Hz is not one of {INPUT_RATES_HZ}", param="rate_hz")


def resample(pcm: Pcm, *, in_hz: int, out_hz: int) -> Pcm:
    """Convert a whole recording at once, its tail included."""
    stream = Resampler(in_hz=in_hz, out_hz=out_hz)
    return np.concatenate([stream.push(pcm), stream.flush()])


def _join(frames: list[av.AudioFrame]) -> Pcm:
    if not frames:
        return np.zeros(0, np.float32)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(
        np.float32, copy=False
    )
