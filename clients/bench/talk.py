"""One session's conversation: connects, speaks turn after turn, waits for each reply, measures.

Over WebRTC the camera is a video track of the peer; over a WebSocket its frames are sent from here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from av.video.frame import VideoFrame

from clients.bench.camera import endless, to_jpeg_base64
from clients.bench.errors import BenchError
from clients.bench.measure import Pcm16, TurnMeter, TurnResult
from clients.bench.peer import Event, Listener, Peer
from clients.bench.speech import Speech

CREATED_TIMEOUT_S = 15.0
PAUSE_S = (
    0.5  # between the end of a reply and the next turn; late events of the turn arrive meanwhile
)
CHECK_S = 0.010
FRAME_PERIOD_S = 0.5  # what the models see: two frames a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is said, shown and waited for in one session."""

    speeches: Sequence[Speech]
    num_turns: int
    silence_ms: int
    timeout_s: float
    frames: Sequence[VideoFrame] | None = None


class Talk:
    """One session. `run` may be called once."""

    def __init__(self, peer: Peer, plan: Plan) -> None:
        self._peer = peer
        self._plan = plan
        self._meter: TurnMeter | None = None
        self._closed: str | None = None
        self._created: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._is_ready = asyncio.Event()
        self.session: Event = {}

    async def run(self) -> list[TurnResult]:
        """All turns, measured; the rest of them failed where the connection was lost.

        Raises:
            BenchError: no session came about.
        """
        try:
            await self._peer.open(
                Listener(on_event=self._event, on_audio=self._audio, on_closed=self._lost)
            )
            await self._begin()
            return [await self._turn(number) for number in range(self._plan.num_turns)]
        finally:
            await self._peer.close()

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(CREATED_TIMEOUT_S):
                self.session = (await self._created).get("session") or {}
        except TimeoutError as error:
            raise BenchError("the server opened no session (no session.created)") from error
        turn_detection = {"type": "server_vad", "silence_duration_ms": self._plan.silence_ms}
        audio = {"input": {"turn_detection": turn_detection}}
        session = {"type": "realtime", "audio": audio}
        await self._peer.send({"type": "session.update", "session": session})
        try:
            async with asyncio.timeout(CREATED_TIMEOUT_S):
                await self._is_ready.wait()
        except TimeoutError as error:
            raise BenchError("the server did not answer session.update") from error

    async def _turn(self, number: int) -> TurnResult:
        meter = self._meter = TurnMeter(is_paced=self._peer.is_paced)
        if self._closed is not None:
            return meter.result(self._closed)
        speech = self._plan.speeches[number % len(self._plan.speeches)]
        self._peer.microphone.say(speech, meter.speech_ended)
        camera = asyncio.get_running_loop().create_task(self._show(meter), name="bench-camera")
        try:
            failure = await self._wait(meter)
        finally:
            camera.cancel()
        # A person hears the reply out before the next question.
        remaining_s = (meter.player.ends_at or 0.0) - time.monotonic()
        await asyncio.sleep(max(0.0, remaining_s) + PAUSE_S)
        return meter.result(failure)

    async def _wait(self, meter: TurnMeter) -> str | None:
        """Until the turn is over: None, or why it never will be."""
        while True:
            now = time.monotonic()
            if meter.is_over(now):
                return None
            if self._closed is not None:
                return self._closed
            if meter.speech_ended_at and now - meter.speech_ended_at > self._plan.timeout_s:
                what = "end of the reply" if meter.heard_at else "reply"
                return f"timeout: no {what} within {self._plan.timeout_s:g} s"
            await asyncio.sleep(CHECK_S)

    async def _show(self, meter: TurnMeter) -> None:
        """Shows the camera during speech, on transports without a video track."""
        if self._plan.frames is None or self._peer.is_paced:
            return
        has_extension = bool(self.session.get("x_ext"))
        for frame in endless(list(self._plan.frames)):
            image = await asyncio.to_thread(to_jpeg_base64, frame)
            if not has_extension:
                await self._peer.send(_picture_item(image))
                return  # a stock server takes still pictures: one a turn
            await self._peer.send({"type": "input_image_buffer.append", "image": image})
            await asyncio.sleep(FRAME_PERIOD_S)
            if meter.speech_ended_at is not None:
                return

    # --------------------------------------------------------------- called by the peer
    def _event(self, event: Event) -> None:
        match event.get("type"):
            case "session.created" if not self._created.done():
                self._created.set_result(event)
            case "session.updated":
                self._is_ready.set()
            case "error" if not self._is_ready.is_set():
                self._is_ready.set()  # a server without these settings still has turns of its own
        if self._meter is not None:
            self._meter.event(event)

    def _audio(self, pcm: Pcm16, rate_hz: int, at: float, missing_samples: int) -> None:
        if self._meter is not None:
            self._meter.audio(pcm, rate_hz, at, missing_samples=missing_samples)

    def _lost(self, reason: str) -> None:
        self._closed = self._closed or reason


def _picture_item(image: str) -> dict[str, Any]:
    part = {"type": "input_image", "image_url": f"data:image/jpeg;base64,{image}"}
    item = {"type": "message", "role": "user", "content": [part]}
    return {"type": "conversation.item.create", "item": item}
