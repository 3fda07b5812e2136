"""Every client event over the data channel of a call and over a sideband, as over a WebSocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving
from fake_engine import Script
from rtc_client import calling

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
GOOD: list[tuple[dict[str, Any], str]] = [
    ({"type": "session.update", "session": {"type": "realtime"}}, "session.updated"),
    ({"type": "input_audio_buffer.clear"}, "input_audio_buffer.cleared"),
    (
        {"type": "conversation.item.create", "item": {**MESSAGE, "id": "one"}},
        "conversation.item.done",
    ),
    ({"type": "conversation.item.retrieve", "item_id": "one"}, "conversation.item.retrieved"),
    ({"type": "response.create", "response": {"metadata": {"a": "b"}}}, "response.created"),
    ({"type": "response.cancel"}, "response.done"),
    ({"type": "output_audio_buffer.clear"}, "output_audio_buffer.cleared"),
    ({"type": "conversation.item.delete", "item_id": "one"}, "conversation.item.deleted"),
]
BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value", "type"),
    ({"type": "conversation.item.truncate", "item_id": "x"}, "missing_required_parameter", None),
    ({"type": "response.create", "response": {"output_modalities": []}}, "invalid_value", None),
    ({"type": "session.update", "session": {"type": "x"}}, "invalid_value", "session.type"),
]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Next = Callable[[str, int], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def channel(rig: Rig, kind: str) -> AsyncIterator[tuple[Send, Next]]:
    async with calling(rig) as client:
        if kind == "data channel":

            async def send(event: dict[str, Any]) -> None:
                client.send(**event)

            yield send, client.wait_for
            return
        call_id = client.location.rsplit("/", 1)[1]
        address = f"ws://127.0.0.1:{rig.port}/v1/realtime?call_id={call_id}"
        async with websockets.connect(address) as socket:

            async def send(event: dict[str, Any]) -> None:
                await socket.send(json.dumps(event))

            async def wait_for(kind: str, _: int) -> dict[str, Any]:
                while True:
                    event: dict[str, Any] = json.loads(await socket.recv())
                    if event["type"] == kind:
                        return event

            yield send, wait_for


@pytest.mark.parametrize("kind", ["data channel", "sideband"])
async def test_each_event_has_its_answer(kind: str) -> None:
    script = Script(num_frames=60, holds_at=50)
    async with serving(script) as rig, channel(rig, kind) as (send, wait_for):
        for event, answer in GOOD:
            await send(event)
            if answer == "response.created":
                await wait_for("output_audio_buffer.started", 1)
            elif answer != "response.done":
                await wait_for(answer, 1)
            else:
                done = await wait_for(answer, 1)
                assert done["response"]["status"] == "cancelled"
                assert done["response"]["metadata"] == {"a": "b"}
        for number, (event, code, param) in enumerate(BAD, 1):
            await send({**event, "event_id": f"mine{number}"})
            error = (await wait_for("error", number))["error"]
            assert (error["code"], error["event_id"]) == (code, f"mine{number}")
            assert param in (None, error["param"])
