"""Media of one call between aiortc's tracks and the conversation: microphone, camera, loudspeaker.

aiortc's own queues have no bound, so each incoming track is drained by a task of ours, always.
The microphone (`daemon.audio_source`) waits in a ring that drops its oldest, and of the camera only
the newest frame counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from daemon.audio_source import AudioSource
from daemon.media_files import shrunk
from pipeline.camera import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, SceneWatch, Thumbnail
from pipeline.conversation import Conversation
from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm
from pipeline.playout import Playout
from pipeline.resample import Resampler

RTP_HZ = 48_000
PACKET_S = 0.02
READ_SAMPLES = ENGINE_OUTPUT_HZ // 50
PACKET_SAMPLES = RTP_HZ // 50
MAX_LATE_S = 0.1
CAMERA_GONE_S = 1.5
LOOK_S = 0.1  # between frames that are compared with the last one


class Microphone:
    """Incoming speech, from its source to the conversation.

    Args:
        on_audio: called at the first sound.
        on_drop: called with the number of samples that had to be dropped.
    """

    def __init__(
        self,
        source: AudioSource,
        *,
        max_ms: int,
        on_audio: Callable[[], None],
        on_drop: Callable[[int], None],
    ) -> None:
        self._source = source
        self._max_ms = max_ms
        self._on_audio = on_audio
        self._on_drop = on_drop
        self._ring: deque[tuple[Pcm, int]] = deque()
        self._num_ms = 0.0
        self._has_some = asyncio.Event()
        self._has_heard = False

    async def drain(self) -> None:
        """Take all that the source has until it ends."""
        await self._source.run(self._push)

    async def feed(self, conversation: Conversation) -> None:
        """Give what has come to the conversation, at its pace."""
        while True:
            while not self._ring:
                self._has_some.clear()
                await self._has_some.wait()
            pcm, rate_hz = self._ring.popleft()
            self._num_ms -= len(pcm) * 1000 / rate_hz
            await conversation.append_audio(pcm, rate_hz=rate_hz)

    def _push(self, pcm: Pcm, rate_hz: int) -> None:
        if not self._has_heard:
            self._has_heard = True
            self._on_audio()
        self._ring.append((pcm, rate_hz))
        self._num_ms += len(pcm) * 1000 / rate_hz
        while self._num_ms > self._max_ms and len(self._ring) > 1:
            oldest, oldest_hz = self._ring.popleft()
            self._num_ms -= len(oldest) * 1000 / oldest_hz
            self._on_drop(len(oldest))
        self._has_some.set()


class Camera:
    """Incoming video, to the conversation: shrunk, and only frames that are worth it."""

    def __init__(self, track: MediaStreamTrack, *, fps: float, max_side: int) -> None:
        self._track = track
        self._watch = SceneWatch(period_s=1 / fps)
        self._max_side = max_side

    async def drain(self, conversation: Conversation) -> None:
        """Take every frame off the track until it ends; when none come, the camera is off."""
        loop = asyncio.get_running_loop()
        next_s = 0.0
        while True:
            try:
                async with asyncio.timeout(CAMERA_GONE_S if conversation.camera.is_on else None):
                    frame = await self._track.recv()
            except TimeoutError:
                conversation.stop_camera()
                continue
            except MediaStreamError:
                conversation.stop_camera()
                return
            if loop.time() >= next_s:
                next_s = loop.time() + LOOK_S
                assert isinstance(frame, av.VideoFrame), type(frame)
                await self._look(frame, conversation, loop.time())

    async def _look(self, frame: av.VideoFrame, conversation: Conversation, now_s: float) -> None:
        camera = conversation.camera
        thumbnail = await asyncio.to_thread(_thumbnail, frame)
        is_new = self._watch.is_new(thumbnail) or not camera.is_on
        if self._watch.is_due(now_s, is_new=is_new, is_wanted=camera.was_wanted()):
            self._watch.take(thumbnail, now_s)
            conversation.append_frame(await asyncio.to_thread(shrunk, frame, self._max_side))
        elif not is_new:
            camera.confirm()


def _thumbnail(frame: av.VideoFrame) -> Thumbnail:
    small = frame.reformat(
        width=THUMBNAIL_WIDTH, height=THUMBNAIL_HEIGHT, format="gray", interpolation="AREA"
    )
    return np.asarray(small.to_ndarray(), np.uint8)


class Loudspeaker(MediaStreamTrack):
    """Outgoing speech: reads 20 ms from the playout for each packet, which paces a reply."""

    kind = "audio"

    def __init__(self, playout: Playout) -> None:
        super().__init__()
        self._playout = playout
        self._resampler = Resampler(in_hz=ENGINE_OUTPUT_HZ, out_hz=RTP_HZ)
        self._ready: Pcm = np.zeros(0, np.float32)
        self._start_s: float | None = None
        self._num_packets = 0

    async def recv(self) -> av.AudioFrame:
        """The next packet, when it is due."""
        if self.readyState != "live":
            raise MediaStreamError
        await self._wait_until_due()
        frame = av.AudioFrame(format="s16", layout="mono", samples=PACKET_SAMPLES)
        frame.planes[0].update(self._next_packet().tobytes())
        frame.sample_rate = RTP_HZ
        frame.pts = self._num_packets * PACKET_SAMPLES
        frame.time_base = Fraction(1, RTP_HZ)
        self._num_packets += 1
        return frame

    async def _wait_until_due(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._start_s is None:
            self._start_s = now_s
        late_s = now_s - (self._start_s + self._num_packets * PACKET_S)
        if late_s > MAX_LATE_S:
            # after a stall go on from here: a burst of old packets would only fill the peer's
            # buffer
            self._start_s += late_s
        elif late_s < 0:
            await asyncio.sleep(-late_s)

    def _next_packet(self) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        pcm = self._playout.read(READ_SAMPLES).astype(np.float32) / 32768.0
        ready = np.concatenate([self._ready, self._resampler.push(pcm)])
        if len(ready) < PACKET_SAMPLES:
            # the resampler's own delay, about a millisecond, once at the start
            ready = np.concatenate([np.zeros(PACKET_SAMPLES - len(ready), np.float32), ready])
        packet, self._ready = ready[:PACKET_SAMPLES], ready[PACKET_SAMPLES:]
        return np.clip(packet * 32768.0, -32768, 32767).astype(np.int16)
