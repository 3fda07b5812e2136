"""A microphone that never stops: speech where there is some to say, silence otherwise, in real
time.

Blocks come 20 ms apart on the monotonic clock, each at the moment at which a real device would have
finished recording it. Both transports read from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from clients.bench.measure import Pcm16
from clients.bench.speech import Speech

BLOCK_S = 0.020


class Microphone:
    """One session's microphone at `rate_hz`."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._block_samples = round(rate_hz * BLOCK_S)
        self._silence = np.zeros(self._block_samples, np.int16)
        self._started_at: float | None = None
        self._num_blocks = 0
        self._speech: Speech | None = None
        self._position = 0
        self._on_end: Callable[[float], None] | None = None

    def say(self, speech: Speech, on_end: Callable[[float], None]) -> None:
        """Begins `speech` at the next block; `on_end` gets the moment of its last loud sample."""
        assert self._speech is None, f"still saying {self._speech}"
        self._speech, self._position, self._on_end = speech, 0, on_end

    async def next_block(self) -> Pcm16:
        """The next 20 ms: [rate_hz / 50] int16. Cancelling is safe."""
        if self._started_at is None:
            self._started_at = time.monotonic()
        due = self._started_at + (self._num_blocks + 1) * BLOCK_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._num_blocks += 1
        return self._take()

    def _take(self) -> Pcm16:
        speech = self._speech
        if speech is None:
            return self._silence
        end = self._position + self._block_samples
        block = speech.pcm[self._position : end]
        if self._on_end is not None and end >= speech.end:
            self._on_end(time.monotonic() - (end - speech.end) / self.rate_hz)
            self._on_end = None
        self._position = end
        if end >= len(speech.pcm):
            self._speech = None
        return np.pad(block, (0, self._block_samples - len(block)))
