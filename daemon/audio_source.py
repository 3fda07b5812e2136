"""Where a call's microphone sound comes from: two receive paths behind one interface.

`PacketSource` takes RTP packets in the place of aiortc's jitter buffer, which holds four packets
back always (80 ms), and after one lost packet fifteen for ever. Ours is `pipeline.jitter`; packets
are decoded here, at once (a tenth of a millisecond each), and what was lost is concealed.
`TrackSource` is aiortc as it comes. Which one: the setting `webrtc.audio_receiver`.

The replaced places have private names; where those do not exist, aiortc stays as it is and the log
says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import NackGenerator
from aiortc.rtp import RtpPacket

from daemon.opus import PacketDecoder, decoder_for, mono
from pipeline.jitter import MAX_HOLE_S, JitterBuffer, JitterCounts, Lost, Piece
from pipeline.messages import Pcm

log = logging.getLogger(__name__)

Deliver = Callable[[Pcm, int], None]
ReceiverKind = Literal["adaptive", "aiortc"]

_BUFFER_NAME = "_RTCRtpReceiver__jitter_buffer"
_CODECS_NAME = "_RTCRtpReceiver__codecs"
_NACKS_NAME = "_RTCRtpReceiver__nack_generator"
_MAX_ASKED = 10  # packets back; older ones would come too late to be played


class AudioSource(Protocol):
    """One microphone, from the network."""

    async def run(self, deliver: Deliver) -> None:
        """Call `deliver(pcm, rate_hz)` for all that comes, in order, until the track ends."""


class TrackSource:
    """What aiortc's receiver makes of the packets; gaps in its timestamps become silence."""

    def __init__(self, track: MediaStreamTrack) -> None:
        self._track = track
        self._next_pts: int | None = None

    async def run(self, deliver: Deliver) -> None:
        """See `AudioSource`."""
        while True:
            try:
                frame = await self._track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.AudioFrame), type(frame)
            gap = self._lost_samples(frame)
            deliver(np.concatenate([np.zeros(gap, np.float32), mono(frame)]), frame.sample_rate)

    def _lost_samples(self, frame: av.AudioFrame) -> int:
        """How much silence keeps the session's clock at the pace of the sender's."""
        pts = frame.pts or 0
        gap = 0 if self._next_pts is None else pts - self._next_pts
        self._next_pts = pts + frame.samples
        return gap if 0 < gap <= MAX_HOLE_S * frame.sample_rate else 0


class PacketSource:
    """Our own receive path. To aiortc's receiver it looks like a `JitterBuffer` that never has a
    frame; what it has goes to `deliver`, on the event loop, from `add` or from a timer.

    Args:
        on_counts: called with the packets that were counted since the call before.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        track: MediaStreamTrack,
        *,
        on_counts: Callable[[JitterCounts], None],
    ) -> None:
        self._receiver = receiver
        self._track = track
        self._on_counts = on_counts
        self._told = JitterCounts()
        self._deliver: Deliver | None = None
        self._buffer: JitterBuffer | None = None
        self._decoder: PacketDecoder | None = None
        self._stream: tuple[int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, deliver: Deliver) -> None:
        """See `AudioSource`."""
        self._deliver = deliver
        try:
            while True:
                await self._track.recv()  # only its end: frames do not come this way
        except MediaStreamError:
            return
        finally:
            self._deliver = None
            self._stop_timer()

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """See aiortc's `JitterBuffer`: no picture to ask for, no frame to decode."""
        if self._deliver is None:
            return False, None
        stream = packet.ssrc, packet.payload_type
        if stream != self._stream:
            self._begin(*stream)
        assert self._buffer is not None
        assert self._decoder is not None
        payload: bytes = packet._data  # type: ignore[attr-defined]
        self._buffer.push(
            sequence_number=packet.sequence_number,
            timestamp=packet.timestamp,
            num_samples=self._decoder.num_samples(payload),
            payload=payload,
            now_s=asyncio.get_running_loop().time(),
        )
        self._release()
        return False, None

    def _begin(self, ssrc: int, payload_type: int) -> None:
        self._tell_counts()
        self._stream = ssrc, payload_type
        codec: RTCRtpCodecParameters = getattr(self._receiver, _CODECS_NAME)[payload_type]
        self._decoder = decoder_for(codec)
        asks = any((each.type, each.parameter) == ("nack", None) for each in codec.rtcpFeedback)
        setattr(self._receiver, _NACKS_NAME, _RecentNacks() if asks else None)
        self._buffer = JitterBuffer(clock_hz=self._decoder.clock_hz)
        self._told = JitterCounts()

    def _release(self) -> None:
        """Pass on what is ready, and come back when a missing packet is given up."""
        loop = asyncio.get_running_loop()
        self._stop_timer()
        if self._deliver is None or self._buffer is None or self._decoder is None:
            return
        for piece in self._buffer.pop(loop.time()):
            pcm = _decoded(piece, self._decoder)
            if len(pcm):
                self._deliver(pcm, self._decoder.rate_hz)
        self._tell_counts()
        due_s = self._buffer.due_s
        if due_s is not None:
            self._timer = loop.call_at(due_s, self._release)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_counts(self) -> None:
        if self._buffer is not None:
            counts = self._buffer.counts
            self._on_counts(counts - self._told)
            self._told = replace(counts)


class _RecentNacks(NackGenerator):
    """Asks again only for packets that could still be played."""

    def truncate(self) -> None:
        """See aiortc's `NackGenerator`."""
        if self.max_seq is not None:
            newest = self.max_seq
            self.missing = {
                number for number in self.missing if (newest - number) % 65_536 <= _MAX_ASKED
            }


def _decoded(piece: Piece, decoder: PacketDecoder) -> Pcm:
    if not isinstance(piece, Lost):
        return decoder.decode(piece.payload) if piece.payload else np.zeros(0, np.float32)
    if piece.is_silence:
        return np.zeros(piece.num_samples * decoder.rate_hz // decoder.clock_hz, np.float32)
    return decoder.conceal(piece.num_samples, piece.following)


def take_over(
    receiver: RTCRtpReceiver,
    track: MediaStreamTrack,
    *,
    kind: ReceiverKind,
    on_counts: Callable[[JitterCounts], None],
) -> AudioSource:
    """The source of a receiver's sound; to be called before it receives."""
    if kind == "aiortc":
        return TrackSource(track)
    if not all(hasattr(receiver, name) for name in (_BUFFER_NAME, _CODECS_NAME, _NACKS_NAME)):
        log.warning("aiortc's jitter buffer was not found; audio input is 80 ms later")
        return TrackSource(track)
    source = PacketSource(receiver, track, on_counts=on_counts)
    setattr(receiver, _BUFFER_NAME, source)
    return source
