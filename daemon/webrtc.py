"""The WebRTC transport of one session: an SDP offer in, an answer out, then a call.

The client offers; its offer may lack candidates, ours are in the answer. Microphone and loudspeaker
are one audio line, events go over its data channel `oai-events`, and a camera is listened to only
when the client opted in to extensions. When the peer falls silent, the call ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Sequence

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)

from daemon import ice, lost_peers, rtp
from daemon.audio_source import take_over
from daemon.auth import Refusal
from daemon.media import Camera, Loudspeaker, Microphone
from daemon.outbox import NUM_ANSWERS, ByteQueue
from daemon.places import Place
from daemon.protocol import ServerEvent, SessionPatch
from daemon.realtime import RealtimeSession
from daemon.sessions import NORMAL, OVERLOADED, SessionEnded, Sessions
from daemon.told import num_bytes, without_texts
from pipeline.playout import Playout

log = logging.getLogger(__name__)

CHANNEL_LABEL = "oai-events"
MAX_MEDIA_LINES = 8
MAX_CANDIDATES = 32
WATCH_S = 0.5
MAX_BUFFERED_BYTES = 1 << 20
MAX_PARTIAL_MESSAGE_BYTES = 1 << 20
CLOSE_S = 2.0

_CANDIDATE = re.compile(r"^a=candidate:\S+ \d+ \S+ \d+ (\S+) ", re.MULTILINE)


def install(sessions: Sessions) -> None:
    """Prepare aiortc for all calls of this process, on the running loop."""
    settings = sessions.settings
    ice.install(settings.server.host)
    lost_peers.install(asyncio.get_running_loop())
    rtp.ask_for_repair()
    rtp.send_speech()
    rtp.install_decoders(
        max_side=settings.webrtc.max_frame_side,
        on_drop=lambda: sessions.metrics.dropped.labels("video_frame").inc(),
    )


async def answer(
    offer: str,
    sessions: Sessions,
    *,
    owner: str,
    model: str | None,
    patches: Sequence[SessionPatch],
    has_extensions: bool,
) -> tuple[str, str]:
    """Begin a call; returns its id and the SDP answer.

    Raises:
        Refusal: 400 for an offer that can not be answered, 429 or 503 without a place for the
            session.
        ProtocolError: the session's configuration does not fit.
    """
    _check_offer(offer)
    place = sessions.take_place("webrtc", owner)
    call = None
    try:
        call = Call(
            sessions,
            place,
            owner=owner,
            model=model,
            patches=patches,
            has_extensions=has_extensions,
        )
        sdp = await call.negotiate(_with_wanted_candidates(offer, sessions.settings.server.host))
    except BaseException:
        place.release()
        if call is not None:
            await call.close()
        raise
    sessions.spawn(call.run(), name=f"call {call.id}")
    return call.id, sdp


def _check_offer(offer: str) -> None:
    lines = offer.splitlines()
    if not lines or lines[0].strip() != "v=0" or "\0" in offer:
        raise Refusal(400, "The body is not an SDP offer.", "invalid_offer", param="sdp")
    kinds = [line[2:].split(" ", 1)[0] for line in lines if line.startswith("m=")]
    if "audio" not in kinds or len(kinds) > MAX_MEDIA_LINES:
        message = f"An offer needs an audio line, and at most {MAX_MEDIA_LINES} media lines."
        raise Refusal(400, message, "invalid_offer", param="sdp")


def _with_wanted_candidates(offer: str, host: str) -> str:
    """The offer without candidates that we would not send anything to."""
    lines, num_kept = [], 0
    for line in offer.splitlines():
        found = _CANDIDATE.match(line)
        if found is not None:
            if num_kept >= MAX_CANDIDATES or not ice.is_wanted_candidate(found[1], host=host):
                continue
            num_kept += 1
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"


class Call:
    """One peer and its session."""

    def __init__(
        self,
        sessions: Sessions,
        place: Place,
        *,
        owner: str,
        model: str | None,
        patches: Sequence[SessionPatch],
        has_extensions: bool,
    ) -> None:
        settings = sessions.settings
        self.id = f"rtc_{secrets.token_hex(10)}"
        self._sessions = sessions
        self._settings = settings.webrtc
        self._place = place
        self._owner = owner
        self._has_extensions = has_extensions
        self._inbox = ByteQueue(settings.limits.max_inbox_bytes)
        self._outbox = ByteQueue(settings.limits.max_outbox_bytes)
        self._channel: RTCDataChannel | None = None
        self._channel_open = asyncio.Event()
        self._channel_low = asyncio.Event()
        self._channel_lost_s: float | None = None  # since when there is none any more
        self._is_over: asyncio.Future[SessionEnded] = asyncio.get_running_loop().create_future()
        self._microphone: Microphone | None = None
        self._camera: Camera | None = None
        playout = Playout()
        self._loudspeaker = Loudspeaker(playout)
        self._session = sessions.open(
            owner=owner,
            has_extensions=has_extensions,
            model=model,
            patches=patches,
            send=self._send,
            playout=playout,
            max_event_bytes=self._settings.max_event_bytes,
        )
        # without a configuration of our own aiortc would ask a public STUN server
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peer.on("datachannel", self._on_channel)
        self._peer.on("track", self._on_track)
        self._peer.on("connectionstatechange", self._on_state)

    # ------------------------------------------------------------------ signalling
    async def negotiate(self, offer: str) -> str:
        """The answer to an offer.

        Raises:
            Refusal: 400, aiortc can make nothing of it.
        """
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
            self._prepare_lines()
            self._peer.addTrack(self._loudspeaker)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception as error:
            # aiortc's parser raises whatever a malformed line leads it to
            log.info("offer refused: %s: %s", type(error).__name__, error)
            message = "The offer can not be answered."
            raise Refusal(400, message, "invalid_offer", param="sdp") from error
        return self._peer.localDescription.sdp

    def _prepare_lines(self) -> None:
        known = RTCRtpReceiver.getCapabilities("video")
        codecs = known.codecs if known else []
        vp8 = [each for each in codecs if each.mimeType in ("video/VP8", "video/rtx")]
        for line in self._peer.getTransceivers():
            if line.kind == "audio":
                continue
            if self._has_extensions:
                line.direction = "recvonly"
                # the only codec whose frames we can measure before decoding them
                line.setCodecPreferences(vp8)
            else:
                line.direction = "inactive"

    # ------------------------------------------------------------------ what aiortc tells
    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._microphone is None:
            dropped = self._sessions.metrics.dropped.labels("microphone_samples")
            (receiver,) = (
                line.receiver
                for line in self._peer.getTransceivers()
                if line.receiver.track is track
            )
            self._microphone = Microphone(
                take_over(
                    receiver,
                    track,
                    kind=self._settings.audio_receiver,
                    on_counts=self._sessions.metrics.count_packets,
                ),
                max_ms=self._settings.max_microphone_ms,
                on_audio=self._note_microphone,
                on_drop=dropped.inc,
            )
        elif track.kind == "video" and self._camera is None and self._has_extensions:
            self._camera = Camera(
                track, fps=self._settings.camera_fps, max_side=self._settings.frame_side
            )
            ages = self._sessions.metrics.frame_age
            self._session.conversation.camera.on_taken = ages.observe

    def _note_microphone(self) -> None:
        self._session.input.has_rtp_microphone = True

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL_LABEL or self._channel is not None:
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = MAX_BUFFERED_BYTES // 2
        channel.on("message", self._on_message)
        channel.on("bufferedamountlow", self._channel_low.set)
        channel.on("close", lambda: self._lose_channel(channel))
        self._channel_lost_s = None
        self._channel_open.set()

    def _lose_channel(self, channel: RTCDataChannel) -> None:
        """The talk goes on for a while, and events wait: the client may open another one."""
        if channel is self._channel:
            self._channel = None
            self._channel_open.clear()
            self._channel_low.set()
            self._channel_lost_s = asyncio.get_running_loop().time()

    def _on_message(self, message: str | bytes) -> None:
        if not self._inbox.try_put(message):
            self._end(OVERLOADED, "The client sends more than can be taken.")

    def _on_state(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._end(NORMAL, "The connection was closed.")

    def _end(self, code: int, reason: str) -> None:
        if not self._is_over.done():
            self._is_over.set_result(SessionEnded(code, reason))

    # ------------------------------------------------------------------ the call
    async def run(self) -> None:
        """Hold the session until it ends, then free everything. Never raises."""
        session = self._session
        session.start()
        parts = {
            "obey": self._obey(session),
            "writer": self._write(),
            "watch": self._watch(),
            "over": self._until_over(),
        }
        if self._microphone is not None:
            parts["microphone"] = self._microphone.drain()
            parts["microphone feed"] = self._microphone.feed(session.conversation)
        if self._camera is not None:
            parts["camera"] = self._camera.drain(session.conversation)
        try:
            await self._sessions.run(session, parts, call_id=self.id, owner=self._owner)
        finally:
            await self.close()
            self._place.release()

    async def close(self) -> None:
        """Free the peer. Idempotent."""
        self._loudspeaker.stop()
        self._end(NORMAL, "The call is over.")
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._peer.close()
        except TimeoutError:
            log.warning("the peer of %s did not close in time", self.id)

    def _send(self, event: ServerEvent) -> None:
        max_bytes = self._settings.max_event_bytes
        message = event.to_json()
        if num_bytes(message) > max_bytes:
            message = without_texts(event).to_json()
        if num_bytes(message) > max_bytes:
            # no client's doing: what would have to be told back by such an event is refused
            log.error("an event of type %s is too long for a data channel", event.type)
            self._session.refuse(
                f"An event of type '{event.type}' is too long for a data channel: it is left out.",
                "event_too_long",
                kind="server_error",
                to=self._send,
            )
        elif not self._outbox.try_put(message):
            self._end(OVERLOADED, "The client does not read fast enough.")

    async def _obey(self, session: RealtimeSession) -> None:
        answer_bytes = NUM_ANSWERS * self._settings.max_event_bytes
        while (message := await self._inbox.get()) is not None:
            if not await self._outbox.until_room(answer_bytes):
                raise SessionEnded(OVERLOADED, "The client does not read fast enough.")
            await session.handle(message)

    async def _write(self) -> None:
        while (message := await self._outbox.get()) is not None:
            (await self._writable_channel()).send(message)

    async def _writable_channel(self) -> RTCDataChannel:
        """The open channel, once it has room."""
        while True:
            await self._channel_open.wait()
            channel = self._channel
            if channel is None:
                continue  # opened and closed at once
            if channel.readyState != "open":
                self._lose_channel(channel)
            elif channel.bufferedAmount <= MAX_BUFFERED_BYTES:
                return channel
            else:
                self._channel_low.clear()
                await self._channel_low.wait()

    async def _until_over(self) -> None:
        raise await self._is_over

    async def _watch(self) -> None:
        """End the call of a peer that does not connect, fell silent, or floods the data channel."""
        deadline_s = asyncio.get_running_loop().time() + self._settings.connect_timeout_s
        while True:
            await asyncio.sleep(WATCH_S)
            if self._peer.connectionState != "connected":
                if asyncio.get_running_loop().time() > deadline_s:
                    raise SessionEnded(NORMAL, "The client did not connect.")
                continue
            lost_s, now_s = self._channel_lost_s, asyncio.get_running_loop().time()
            if lost_s is not None and now_s - lost_s > self._settings.channel_grace_s:
                raise SessionEnded(NORMAL, "The client closed the data channel.")
            silence_s = ice.silence_s(self._peer)
            if silence_s is not None and silence_s > self._settings.vanish_timeout_s:
                raise SessionEnded(NORMAL, "The client vanished.")
            if _partial_bytes(self._peer) > MAX_PARTIAL_MESSAGE_BYTES:
                raise SessionEnded(OVERLOADED, "A message of the data channel is too long.")


def _partial_bytes(peer: RTCPeerConnection) -> int:
    """Bytes of messages that wait for their last fragment; aiortc itself sets no bound to them."""
    streams = getattr(peer.sctp, "_inbound_streams", {})
    return sum(
        len(chunk.user_data) for stream in streams.values() for chunk in list(stream.reassembly)
    )
