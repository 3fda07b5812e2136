"""A small Realtime server for tests of clients.

Hears by loudness, answers with a tone, over WebSocket and WebRTC.
 It has no model and knows only what the page and the benchmark need, so that their tests can choose
delays and faults (`Script`). Loaded by path from `conftest.py`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from fake_tracks import RATE_HZ, Speaker, listen, middle_of, watch
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from PIL import Image

LOUD = 300
_ids = itertools.count(1)
Json = dict[str, Any]


def _id(prefix: str) -> str:
    return f"{prefix}_{next(_ids)}"


@dataclass
class Script:
    """How the server behaves."""

    health: Json = field(
        default_factory=lambda: {
            "state": "ready",
            "model": "fake",
            "is_babbling": True,
            "commit": "abc123",
        }
    )
    reply_s: float = 0.6
    delay_s: float = 0.05
    lead_silence_s: float = 0.0
    gap_s: float = 0.0  # a hole in the middle of a WebSocket reply
    doubts: tuple[tuple[float, str], ...] = ()  # of each reply: seconds later, what is told
    hole_s: float = 0.0  # digital silence in the middle of every reply
    is_mute: bool = False  # never answers
    status: str = "completed"
    key: str | None = None
    is_udp_blocked: bool = False  # its candidates lead nowhere


@dataclass
class Seen:
    """What the server saw, for assertions."""

    events: list[Json] = field(default_factory=list)
    pcm: list[np.ndarray] = field(default_factory=list)
    colours: list[tuple[int, ...]] = field(default_factory=list)
    num_calls: int = 0
    num_sockets: int = 0
    hangups: int = 0

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


def tone(seconds: float) -> np.ndarray:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (9000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)


class Session:
    """One connection: turns by loudness, one reply at a time."""

    def __init__(
        self, script: Script, seen: Seen, send: Callable[[Json], None], has_ext: bool
    ) -> None:
        self.script, self.seen, self._send, self.has_ext = script, seen, send, has_ext
        self.turn_detection: Json | None = {"silence_duration_ms": 200}
        self.item: str | None = None
        self.num_samples = 0
        self.quiet_ms = 0.0
        self.reply: asyncio.Task[None] | None = None
        self.playing: tuple[str, str] | None = None
        self.ids: Json = {"response_id": "r", "item_id": "i"}
        self.play: Callable[[np.ndarray], None] = lambda pcm: None
        self.clear: Callable[[], None] = lambda: None
        self.drained: Callable[[], Any] | None = None
        self.emit("session.created", session={"type": "realtime", "id": "sess_1", "model": "fake"})

    def emit(self, kind: str, **fields: Any) -> None:
        self._send({"type": kind, "event_id": _id("event"), **fields})

    def feed(self, pcm: np.ndarray) -> None:
        self.seen.pcm.append(pcm)
        for at in range(0, len(pcm), 480):
            block = pcm[at : at + 480]
            self.num_samples += len(block)
            self._hear(float(np.abs(block.astype(np.int32)).mean()), len(block) * 1000 / RATE_HZ)

    def _hear(self, loudness: float, block_ms: float) -> None:
        if self.turn_detection is None:
            return
        now_ms = int(self.num_samples * 1000 / RATE_HZ)
        if loudness > LOUD:
            self.quiet_ms = 0.0
            if self.item is None:
                self.item = _id("item")
                self.emit(
                    "input_audio_buffer.speech_started", item_id=self.item, audio_start_ms=now_ms
                )
                self.cancel("turn_detected")
        elif self.item is not None:
            self.quiet_ms += block_ms
            if self.quiet_ms >= self.turn_detection.get("silence_duration_ms", 200):
                self.emit(
                    "input_audio_buffer.speech_stopped", item_id=self.item, audio_end_ms=now_ms
                )
                self.commit()
                self.respond()

    def commit(self) -> None:
        item, self.item = self.item or _id("item"), None
        self.emit("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        self.add({"id": item, "type": "message", "role": "user", "status": "completed",
                  "content": [{"type": "input_audio", "transcript": None}]})  # fmt: skip

    def add(self, item: Json) -> None:
        self.emit("conversation.item.added", item=item, previous_item_id=None)
        self.emit("conversation.item.done", item=item, previous_item_id=None)

    def respond(self) -> None:
        if not self.script.is_mute:
            self.reply = asyncio.get_running_loop().create_task(self._reply())

    def cancel(self, reason: str) -> None:
        if self.reply is not None:
            self.reply.cancel(reason)
            self.reply = None

    async def _reply(self) -> None:
        response = {
            "id": _id("resp"),
            "object": "realtime.response",
            "status": "in_progress",
            "output": [],
        }
        item = {
            "id": _id("item"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        ids = {
            "response_id": response["id"],
            "item_id": item["id"],
            "output_index": 0,
            "content_index": 0,
        }
        self.ids = ids
        self.emit("response.created", response=response)
        try:
            await asyncio.sleep(self.script.delay_s)
            self.emit(
                "response.output_item.added", response_id=response["id"], output_index=0, item=item
            )
            self.emit("conversation.item.added", item=item, previous_item_id=None)
            await self._speak(ids)
        except asyncio.CancelledError as cancelled:
            self.clear()
            self._finish(
                response, item, "cancelled", {"type": "cancelled", "reason": str(cancelled)}
            )
            if self.drained is not None:
                self.playing = (response["id"], item["id"])
                self._silenced("cleared")
            return
        error = {"type": "failed", "error": {"message": "out of order"}}
        self._finish(
            response, item, self.script.status, error if self.script.status == "failed" else None
        )
        self.playing = (response["id"], item["id"])
        if self.drained is not None:
            await self.drained()
            self._silenced("stopped")

    async def _speak(self, ids: Json) -> None:
        script = self.script
        half = tone(script.reply_s / 2)
        hole = np.zeros(int(script.hole_s * RATE_HZ), np.int16)
        lead = np.zeros(int(script.lead_silence_s * RATE_HZ), np.int16)
        if self.drained is not None:
            self.emit("output_audio_buffer.started", response_id=ids["response_id"])
        self.play(np.concatenate([lead, half]))
        for word in ("one ", "two ", "three"):
            self.emit("response.output_audio_transcript.delta", delta=word, **ids)
            await asyncio.sleep(0.02)
        for later_s, doubt in script.doubts:
            await asyncio.sleep(later_s)
            self.emit("x.output.doubt", doubt=doubt)
        await asyncio.sleep(script.gap_s)
        self.play(np.concatenate([hole, half]))
        if self.drained is None:
            self.emit("response.output_audio.done", **ids)

    def _silenced(self, how: str) -> None:
        if self.playing is None:
            return
        (response, item), self.playing = self.playing, None
        self.emit(f"output_audio_buffer.{how}", response_id=response)
        if how == "cleared":
            self.emit(
                "conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=100
            )

    def _finish(self, response: Json, item: Json, status: str, details: Json | None) -> None:
        item["status"] = "completed" if status == "completed" else "incomplete"
        item["content"] = [{"type": "output_audio", "transcript": "one two three"}]
        self.emit("conversation.item.done", item=item, previous_item_id=None)
        done = {**response, "status": status, "status_details": details, "output": [item]}
        self.emit("response.done", response=done)
        if self.has_ext:
            stages = {"turn_end": 700.0, "encoder_tail": 3.0, "prefill": 9.0, "first_text": 12.0}
            stages |= {"first_codec": 15.0, "first_pcm": 18.0}
            self.emit("x.metrics", response_id=response["id"], stages_ms=stages, num_underruns=0)

    def handle(self, text: str) -> None:
        event = json.loads(text)
        self.seen.events.append(event)
        match event["type"]:
            case "session.update":
                audio = event["session"].get("audio", {}).get("input", {})
                self.turn_detection = audio.get("turn_detection", self.turn_detection)
                self.emit("session.updated", session=event["session"])
            case "input_audio_buffer.append":
                self.feed(np.frombuffer(base64.b64decode(event["audio"]), np.int16))
            case "input_image_buffer.append":
                picture = Image.open(io.BytesIO(base64.b64decode(event["image"])))
                self.seen.colours.append(middle_of(np.asarray(picture)))
            case "input_audio_buffer.commit":
                self.commit()
            case "conversation.item.create":
                self.add({"id": _id("item"), "status": "completed", **event["item"]})
            case "response.create":
                self.respond()
            case "response.cancel":
                self.cancel("client_cancelled")
            case "conversation.item.retrieve":
                content = [{"type": "output_audio", "transcript": "one two"}]
                item = {"id": event["item_id"], "type": "message", "role": "assistant"}
                item |= {"status": "completed", "content": content}
                self.emit("conversation.item.retrieved", item=item)
            case "conversation.item.truncate":
                told = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
                self.emit("conversation.item.truncated", **told)
            case "output_audio_buffer.clear":
                self.clear()
                self._silenced("cleared")


def _refused(request: Request, key: str) -> Response | None:
    if request.headers.get("authorization") == f"Bearer {key}":
        return None
    body = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}
    return Response(json.dumps(body), 401, media_type="application/json")


def build_app(script: Script, seen: Seen) -> FastAPI:
    """The routes; the page itself is added by the fixture that needs it."""
    app = FastAPI()
    peers: set[RTCPeerConnection] = set()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    @app.get("/healthz")
    async def healthz() -> Json:
        return script.health

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        return (script.key and _refused(request, script.key)) or Response("{}")

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        if script.key and f"openai-insecure-api-key.{script.key}" not in offered:
            await socket.close()
            return
        seen.num_sockets += 1
        await socket.accept(subprotocol="realtime" if "realtime" in offered else None)
        outbox: asyncio.Queue[Json] = asyncio.Queue()
        session = Session(script, seen, outbox.put_nowait, "x-ext" in socket.query_params)
        session.play = lambda pcm: session.emit(
            "response.output_audio.delta",
            delta=base64.b64encode(pcm.tobytes()).decode(),
            **session.ids,
        )

        async def write() -> None:
            while True:
                await socket.send_json(await outbox.get())

        spawn(write())
        try:
            while True:
                session.handle(await socket.receive_text())
        except WebSocketDisconnect:
            session.cancel("gone")

    @app.post("/v1/realtime/calls")
    async def calls(request: Request) -> Response:
        if script.key and (refused := _refused(request, script.key)):
            return refused
        seen.num_calls += 1
        sdp = str((await request.form())["sdp"])
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peers.add(peer)
        speaker = Speaker()
        waiting: list[MediaStreamTrack] = []

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            if track.kind == "audio":
                waiting.append(track)
            else:
                spawn(watch(track, seen.colours))

        @peer.on("datachannel")
        def on_channel(channel: Any) -> None:
            def send(event: Json) -> None:
                if channel.readyState == "open":
                    channel.send(json.dumps(event))

            session = Session(script, seen, send, "x-ext" in request.query_params)
            session.play = lambda pcm: setattr(speaker, "pcm", np.concatenate([speaker.pcm, pcm]))
            session.clear = lambda: setattr(speaker, "pcm", np.zeros(0, np.int16))
            session.drained = speaker.drained
            channel.on("message", session.handle)
            for track in waiting:
                spawn(listen(track, session.feed))

        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        peer.addTrack(speaker)
        await peer.setLocalDescription(await peer.createAnswer())
        headers = {"Location": "/v1/realtime/calls/rtc_1"}
        sdp = peer.localDescription.sdp
        if script.is_udp_blocked:  # an address that is reserved for documentation
            sdp = re.sub(r"(a=candidate:\S+ \d udp \d+) \S+", r"\1 192.0.2.1", sdp)
        return Response(sdp, 201, headers, "application/sdp")

    @app.post("/v1/realtime/calls/{call}/hangup")
    async def hangup(call: str) -> None:
        seen.hangups += 1

    async def close() -> None:
        for peer in peers:
            await peer.close()
        for task in tasks:
            task.cancel()

    app.state.close = close
    return app
