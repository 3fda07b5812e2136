"""A small Realtime server for tests of clients.

Hears by loudness, answers with a tone, over WebSocket and WebRTC.
 It has no model and knows only what the page and the benchmark need, so that their tests can choose
delays and faults (`Script`). Loaded by path from `conftest.py`.
"""

from __future__ import annotations

import asyncio
import base64
import fractions
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, AudioResampler
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

RATE_HZ = 24_000
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
    hole_s: float = 0.0  # digital silence in the middle of every reply
    is_mute: bool = False  # never answers
    status: str = "completed"
    key: str | None = None


@dataclass
class Seen:
    """What the server saw, for assertions."""

    events: list[Json] = field(default_factory=list)
    pcm: list[np.ndarray] = field(default_factory=list)
    colours: list[tuple[int, ...]] = field(default_factory=list)
    num_calls: int = 0
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
            if self.quiet_ms >= self.turn_detection["silence_duration_ms"]:
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
        await asyncio.sleep(script.gap_s)
        self.play(np.concatenate([hole, half]))

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
        if self.has_ext:
            stages = {"turn_end": 200.0, "encoder_tail": 3.0, "prefill": 9.0, "first_text": 12.0}
            stages |= {"first_codec": 15.0, "first_pcm": 18.0}
            self.emit("x.metrics", response_id=response["id"], stages_ms=stages, num_underruns=0)
        self.emit("response.done", response=done)

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
            case "input_audio_buffer.commit":
                self.commit()
            case "conversation.item.create":
                self.add({"id": _id("item"), "status": "completed", **event["item"]})
            case "response.create":
                self.respond()
            case "response.cancel":
                self.cancel("client_cancelled")
            case "output_audio_buffer.clear":
                self.clear()
                self._silenced("cleared")


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


async def _listen(track: MediaStreamTrack, session: Session) -> None:
    resampler = AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    try:
        while True:
            frame = await track.recv()
            for out in resampler.resample(frame):
                session.feed(out.to_ndarray().reshape(-1).copy())
    except MediaStreamError:
        return


async def _watch(track: MediaStreamTrack, seen: Seen) -> None:
    try:
        while True:
            frame = await track.recv()
            middle = frame.to_ndarray(format="rgb24")[100:140, 100:140]
            seen.colours.append(tuple(int(value) for value in middle.mean((0, 1))))
    except MediaStreamError:
        return


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

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        await socket.accept()
        outbox: asyncio.Queue[Json] = asyncio.Queue()
        session = Session(script, seen, outbox.put_nowait, "x-ext" in socket.query_params)
        session.play = lambda pcm: session.emit(
            "response.output_audio.delta",
            delta=base64.b64encode(pcm.tobytes()).decode(),
            response_id="r",
            item_id="i",
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
        if script.key and request.headers.get("authorization") != f"Bearer {script.key}":
            body = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}
            return Response(json.dumps(body), 401, media_type="application/json")
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
                spawn(_watch(track, seen))

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
                spawn(_listen(track, session))

        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        peer.addTrack(speaker)
        await peer.setLocalDescription(await peer.createAnswer())
        headers = {"Location": "/v1/realtime/calls/rtc_1"}
        return Response(peer.localDescription.sdp, 201, headers, "application/sdp")

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
