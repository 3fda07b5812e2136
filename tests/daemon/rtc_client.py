"""A WebRTC client in the test's own process: speaks, shows a picture, listens, records events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.mediastreams import MediaStreamError
from daemon_rig import Rig, until

RTP_HZ = 48_000


class SpokenTrack(MediaStreamTrack):
    """Silence in real time, and what is said."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pending = b""
        self._count = 0
        self._start_s: float | None = None

    def say(self, pcm: bytes) -> None:
        """Queue PCM16 at 48 kHz."""
        self._pending += pcm

    async def recv(self) -> av.AudioFrame:
        now_s = asyncio.get_running_loop().time()
        self._start_s = self._start_s or now_s
        await asyncio.sleep(max(0.0, self._start_s + self._count * 0.02 - now_s))
        piece, self._pending = self._pending[:1920], self._pending[1920:]
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        frame.planes[0].update(piece.ljust(1920, b"\0"))
        frame.sample_rate = RTP_HZ
        frame.pts = self._count * 960
        frame.time_base = Fraction(1, RTP_HZ)
        self._count += 1
        return frame


class RedTrack(VideoStreamTrack):
    """A red picture, 320 x 240."""

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        rgb = np.zeros((240, 320, 3), np.uint8)
        rgb[:, :, 0] = 220
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Client:
    """One call. `loudness` holds the RMS of each packet heard."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = SpokenTrack()
        self.channel = self.peer.createDataChannel("oai-events")
        self.events: list[dict[str, Any]] = []
        self.loudness: list[float] = []
        self.location = ""
        self.answer = ""
        self._listener: asyncio.Task[None] | None = None
        self.channel.on("message", lambda text: self.events.append(json.loads(text)))
        self.peer.on("track", self._on_track)

    async def call(
        self, *, query: str = "", has_camera: bool = False, authorization: str = ""
    ) -> None:
        """Offer without candidates, as browsers do, and wait for the session."""
        self.peer.addTrack(self.microphone)
        if has_camera:
            self.peer.addTransceiver(RedTrack(), direction="sendonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        lines = self.peer.localDescription.sdp.splitlines()
        offer = "\r\n".join(
            line for line in lines if not line.startswith(("a=candidate", "a=end-of-cand"))
        )
        headers = {"type": "application/sdp"}
        if authorization:
            headers["authorization"] = authorization
        response = await self.rig.fetch(
            "POST", f"/v1/realtime/calls{query}", offer + "\r\n", **headers
        )
        assert response.status == 201, response.text
        assert response.headers["content-type"] == "application/sdp"
        self.location = response.headers["location"]
        self.answer = response.text
        await self.peer.setRemoteDescription(
            RTCSessionDescription(sdp=response.text, type="answer")
        )
        await until(lambda: self.events, timeout_s=10)
        assert self.events[0]["type"] == "session.created"

    def send(self, **event: Any) -> None:
        self.channel.send(json.dumps(event))

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def wait_for(self, kind: str, count: int = 1, timeout_s: float = 10.0) -> dict[str, Any]:
        await until(lambda: self.kinds().count(kind) >= count, timeout_s)
        found: dict[str, Any] = [e for e in self.events if e["type"] == kind][-1]
        return found

    def vanish(self) -> None:
        """No packet leaves or arrives any more, and nobody says goodbye."""
        connection = self.peer.getTransceivers()[0].receiver.transport.transport._connection
        for protocol in connection._protocols:
            protocol.transport.abort()

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._listener = asyncio.get_running_loop().create_task(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                pcm = frame.to_ndarray().astype(np.float64)
                self.loudness.append(float(np.sqrt((pcm**2).mean())))

    async def aclose(self) -> None:
        await self.peer.close()
        if self._listener is not None:
            await self._listener


@contextlib.asynccontextmanager
async def calling(rig: Rig, **options: Any) -> AsyncIterator[Client]:
    client = Client(rig)
    try:
        await client.call(**options)
        yield client
    finally:
        await client.aclose()
