"""The fake Realtime server's media: a paced loudspeaker track, and what listens and watches."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import Callable

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, AudioResampler

RATE_HZ = 24_000


def middle_of(rgb: np.ndarray) -> tuple[int, ...]:
    """The mean colour in the middle of a picture."""
    return tuple(int(value) for value in rgb[100:140, 100:140].mean((0, 1)))


class Speaker(MediaStreamTrack):
    """A paced output track: what is played, else silence."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.pcm = np.zeros(0, np.int16)
        self.position = 0
        self.start: float | None = None

    async def drained(self) -> None:
        while len(self.pcm):  # noqa: ASYNC110 a fake may poll
            await asyncio.sleep(0.02)

    async def recv(self) -> AudioFrame:
        self.start = self.start or time.monotonic()
        await asyncio.sleep(max(0.0, self.start + self.position / RATE_HZ - time.monotonic()))
        block, self.pcm = self.pcm[:480], self.pcm[480:]
        frame = AudioFrame.from_ndarray(
            np.pad(block, (0, 480 - len(block)))[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = (
            RATE_HZ,
            self.position,
            fractions.Fraction(1, RATE_HZ),
        )
        self.position += 480
        return frame


async def listen(track: MediaStreamTrack, feed: Callable[[np.ndarray], None]) -> None:
    """Hand over what comes in, 24 kHz mono int16, until the track ends."""
    resampler = AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    try:
        while True:
            frame = await track.recv()
            for out in resampler.resample(frame):
                feed(out.to_ndarray().reshape(-1).copy())
    except MediaStreamError:
        return


async def watch(track: MediaStreamTrack, colours: list[tuple[int, ...]]) -> None:
    """Note the colour of each frame until the track ends."""
    try:
        while True:
            frame = await track.recv()
            colours.append(middle_of(frame.to_ndarray(format="rgb24")))
    except MediaStreamError:
        return
