"""A session over WebRTC (aiortc): microphone, camera and reply as RTP, events on a data channel."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import time
from collections.abc import Callable
from typing import Any, cast

import aioice.ice
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from av import AudioFrame
from av.video.frame import VideoFrame

from clients.bench.address import Address, refusal, request
from clients.bench.camera import FRAMES_PER_S, endless
from clients.bench.errors import BenchError
from clients.bench.impairment import Condition
from clients.bench.measure import Pcm16
from clients.bench.microphone import Microphone
from clients.bench.peer import Event, Listener
from clients.bench.relay import Relay, server_endpoint, through_relay, without_candidates

RATE_HZ = 48_000
OPEN_TIMEOUT_S = 15.0
VIDEO_CLOCK_HZ = 90_000
OnPacket = Callable[[int, bytes, float], None]
_JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"


class _AtOnce(JitterBuffer):
    """Hands every packet on as it arrives: the moment of arrival is what is measured.

    aiortc's own holds back four packets (82 ms), and without any prefetch still one: it waits to
    see the next timestamp. A late packet is dropped; the gap that it leaves is counted.
    """

    def __init__(self, on_packet: OnPacket | None) -> None:
        super().__init__(capacity=16)
        self._newest: int | None = None
        self._on_packet = on_packet

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        if self._on_packet is not None and packet.payload:
            self._on_packet(packet.timestamp, packet.payload, time.monotonic())
        ahead = 1 if self._newest is None else (packet.timestamp - self._newest) % 2**32
        if not 0 < ahead < 2**31:
            return False, None
        self._newest = packet.timestamp
        return False, JitterFrame(data=packet._data, timestamp=packet.timestamp)  # type: ignore[attr-defined]


class _MicrophoneTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self, microphone: Microphone) -> None:
        super().__init__()
        self._microphone = microphone
        self._pts = 0

    async def recv(self) -> AudioFrame:
        pcm = await self._microphone.next_block()
        frame = AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, self._pts
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        self._pts += len(pcm)
        return frame


class _CameraTrack(MediaStreamTrack):
    kind = "video"

    def __init__(self, frames: list[VideoFrame]) -> None:
        super().__init__()
        self._frames = endless(frames)
        self._num_frames = 0
        self._started_at: float | None = None

    async def recv(self) -> VideoFrame:
        if self._started_at is None:
            self._started_at = time.monotonic()
        due = self._started_at + self._num_frames / FRAMES_PER_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        frame = next(self._frames)
        frame.pts = self._num_frames * VIDEO_CLOCK_HZ // FRAMES_PER_S
        frame.time_base = fractions.Fraction(1, VIDEO_CLOCK_HZ)
        self._num_frames += 1
        return frame


class WebRtcPeer:
    """Implements `clients.bench.peer.Peer`.

    Args:
        network: what lies between here and the server, both ways, once connected; None: nothing.
        microphone: what is said; None: nothing until `microphone.say`.
        on_packet: is told of each packet of sound: its RTP timestamp, its payload and the
            monotonic second at which it came, whatever its turn was.
    """

    is_paced = True

    def __init__(
        self,
        address: Address,
        frames: list[VideoFrame] | None,
        *,
        network: Condition | None = None,
        seed: int = 1,
        microphone: Microphone | None = None,
        on_packet: OnPacket | None = None,
    ) -> None:
        self.microphone = microphone or Microphone(RATE_HZ)
        self._on_packet = on_packet
        self._address = address
        self._frames = frames
        self._network = network
        self._seed = seed
        self._relay: Relay | None = None
        self._location: str | None = None
        self._peer: RTCPeerConnection | None = None
        self._channel: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, listener: Listener) -> None:
        """See `Peer`."""
        if self._address.is_loopback:
            # aioice leaves 127.0.0.1 out, but a machine without network has nothing else.
            _offer_loopback()
        # Without a configuration aiortc asks a public STUN server.
        peer = self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        channel = self._channel = peer.createDataChannel("oai-events")
        opened = asyncio.Event()
        channel.on("open", opened.set)
        channel.on("message", lambda text: listener.on_event(json.loads(text)))
        channel.on("close", lambda: listener.on_closed("the server closed the call"))
        peer.on("track", lambda track: self._heard(peer, track, listener))
        peer.on("connectionstatechange", lambda: _watch(peer, listener))
        peer.addTrack(_MicrophoneTrack(self.microphone))
        if self._frames is not None:
            peer.addTrack(_CameraTrack(self._frames))
        await peer.setLocalDescription(await peer.createOffer())
        answer = await self._offer(peer)
        if self._network is not None:
            self._relay = await Relay.open(server_endpoint(answer), seed=self._seed)
            answer = through_relay(answer, self._relay.address)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await opened.wait()
        except TimeoutError as error:
            raise BenchError(f"no media path to {self._address.base}") from error
        if self._relay is not None and self._network is not None:
            self._relay.impair(up=self._network, down=self._network)

    async def send(self, event: Event) -> None:
        """See `Peer`."""
        if self._channel.readyState == "open":
            self._channel.send(json.dumps(event))

    def calm(self) -> None:
        """From now on nothing happens to packets."""
        if self._relay is not None:
            self._relay.impair()

    async def close(self) -> None:
        """See `Peer`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._location is not None:
            url = f"{self._address.absolute(self._location)}/hangup"
            self._location = None
            with contextlib.suppress(BenchError):  # the server is gone, and the call with it
                await request(self._address, url, is_post=True)
        if self._peer is not None:
            await self._peer.close()
        if self._relay is not None:
            self._relay.close()

    async def drop(self) -> None:
        """See `Peer`. The server is not told by HTTP; aiortc's farewell in SCTP and DTLS stays."""
        self._location = None
        await self.close()

    async def _offer(self, peer: RTCPeerConnection) -> str:
        offer = peer.localDescription.sdp
        if self._network is not None:
            offer = without_candidates(offer)
        form = {"sdp": offer, "session": json.dumps({"type": "realtime"})}
        reply = await request(self._address, self._address.calls_url, form=form)
        if not 200 <= reply.status < 300:
            raise BenchError(refusal(reply.status, reply.body))
        self._location = reply.location
        return reply.body

    def _heard(self, peer: RTCPeerConnection, track: MediaStreamTrack, listener: Listener) -> None:
        if track.kind != "audio":
            return
        for receiver in (transceiver.receiver for transceiver in peer.getTransceivers()):
            if receiver.track is track and hasattr(receiver, _JITTER_BUFFER):
                setattr(receiver, _JITTER_BUFFER, _AtOnce(self._on_packet))
        task = asyncio.get_running_loop().create_task(_listen(track, listener), name="bench-rtp")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _listen(track: MediaStreamTrack, listener: Listener) -> None:
    expected_pts: int | None = None
    while True:
        try:
            frame = cast(AudioFrame, await track.recv())
        except MediaStreamError:
            return
        at = time.monotonic()
        samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
        pcm: Pcm16 = samples[:, 0].astype(np.int16)
        pts = frame.pts or 0
        missing = max(0, pts - expected_pts) if expected_pts is not None else 0
        expected_pts = pts + len(pcm)
        listener.on_audio(pcm, frame.sample_rate, at, missing)


def _watch(peer: RTCPeerConnection, listener: Listener) -> None:
    if peer.connectionState == "failed":
        listener.on_closed("the media path to the server broke")


def _offer_loopback() -> None:
    if getattr(aioice.ice.get_host_addresses, "is_ours", False):
        return
    original = aioice.ice.get_host_addresses

    def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return [
            *original(use_ipv4=use_ipv4, use_ipv6=use_ipv6),
            *(["127.0.0.1"] if use_ipv4 else []),
        ]

    get_host_addresses.is_ours = True  # type: ignore[attr-defined]
    aioice.ice.get_host_addresses = get_host_addresses
