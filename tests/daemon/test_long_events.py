"""Long texts: what can not be told back is refused whole, to whom it concerns; the rest fits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets
from daemon_rig import serving
from fake_engine import Script
from rtc_client import calling
from test_sideband import address, next_of
from wire_client import wire

from daemon.protocol_server import CallArgumentsDelta, TextDelta
from daemon.protocol_transcripts import InputTranscriptDelta
from daemon.told import fits, in_pieces

MIB = 1 << 20


def typed(num_chars: int, letter: str = "x") -> dict[str, Any]:
    content = [{"type": "input_text", "text": letter * num_chars}]
    return {"type": "message", "role": "user", "content": content}


def call(num_chars: int) -> dict[str, Any]:
    arguments = json.dumps({"a": "x" * num_chars})
    return {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        ("conversation.item.create", {"item": typed(10_000)}, "item"),
        ("conversation.item.create", {"item": typed(5_000, "ü")}, "item"),
        ("conversation.item.create", {"item": call(10_000)}, "item"),
        (
            "session.update",
            {"session": {"type": "realtime", "instructions": "x" * 10_000}},
            "session",
        ),
    ],
)
async def test_what_can_not_be_told_back_is_not_done(
    kind: str, fields: dict[str, Any], param: str
) -> None:
    async with serving(websocket__max_event_bytes=9_000) as rig, wire(rig) as client:
        before = client.events[0]["session"]["instructions"]
        await client.send(kind, event_id="mine", **fields)
        error = (await client.until("error"))[-1]["error"]
        assert (error["code"], error["param"], error["event_id"]) == (
            "event_too_long",
            param,
            "mine",
        )
        assert (await client.update())["instructions"] == before
        assert client.kinds() == ["session.created", "error", "session.updated"]
        await client.type("x" * 8_000)  # and what fits is done


async def test_a_session_that_can_not_be_shown_does_not_begin() -> None:
    session = json.dumps({"session": {"type": "realtime", "instructions": "x" * 10_000}})
    async with serving(websocket__max_event_bytes=9_000) as rig:
        answer = await rig.fetch("POST", "/v1/realtime/client_secrets", session)
        assert (answer.status, answer.error["code"]) == (400, "event_too_long")


async def test_on_a_call_the_data_channel_counts_and_only_the_sender_is_told() -> None:
    """Of a sideband's item the data channel hears nothing, or all."""
    async with (
        serving(webrtc__max_event_bytes=4_000) as rig,
        calling(rig) as client,
        websockets.connect(address(rig, client.location)) as first,
        websockets.connect(address(rig, client.location)) as second,
    ):
        for each in (first, second):
            await next_of(each, "session.created")
        create = {"type": "conversation.item.create", "event_id": "mine", "item": typed(5_000)}
        await first.send(json.dumps(create))
        error = (await next_of(first, "error"))["error"]
        assert (error["code"], error["event_id"]) == ("event_too_long", "mine")
        client.send(**(create | {"event_id": "yours"}))
        assert (await client.wait_for("error"))["error"]["event_id"] == "yours"
        await first.send(json.dumps(create | {"item": typed(3_000)}))
        done = await client.wait_for("conversation.item.done")
        kinds = []
        while not kinds or kinds[-1] != "conversation.item.done":
            event = json.loads(await second.recv())
            kinds.append(event["type"])
        assert kinds == ["conversation.item.added", "conversation.item.done"]
        assert event["event_id"] == done["event_id"]
        assert client.kinds().count("error") == 1


async def test_the_texts_of_a_request_are_bounded() -> None:
    async with serving(limits__max_text_chars=10_000) as rig, wire(rig) as client:
        for response, param in (
            ({"input": [typed(6_000), call(5_000)]}, "response.input"),
            ({"instructions": "x" * 10_001}, "response.instructions"),
        ):
            await client.send("response.create", event_id="mine", response=response)
            error = (await client.until("error"))[-1]["error"]
            assert (error["code"], error["param"]) == ("text_too_long", param)
            assert error["event_id"] == "mine"
        body = {"messages": [{"role": "user", "content": "x" * 10_001}]}
        answer = await rig.fetch("POST", "/v1/chat/completions", json.dumps(body))
        assert (answer.status, answer.error["code"]) == (400, "text_too_long")
        assert not rig.engine.responses
        await client.send("conversation.item.create", item=call(9_000))
        await client.until("conversation.item.done")
        await client.send("conversation.item.create", item=call(2_000))
        assert (await client.until("error"))[-1]["error"]["code"] == "conversation_full"


async def test_a_history_may_come_as_fast_as_it_can_be_sent() -> None:
    """More is told back than may wait at once; who reads it, if late, gets all of it."""
    async with (
        serving(Script(), limits__max_outbox_bytes=2 * MIB, limits__max_text_chars=8 * MIB) as rig,
        wire(rig, max_size=None) as client,
    ):
        client.socket.transport.pause_reading()
        for _ in range(6):
            await client.send("conversation.item.create", item=typed(900_000))
        await asyncio.sleep(0.5)
        client.socket.transport.resume_reading()
        for _ in range(6):
            await client.until("conversation.item.done")
        await client.check_open()


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600", "\x01", '"'])
@pytest.mark.parametrize("kind", [TextDelta, CallArgumentsDelta, InputTranscriptDelta])
def test_a_part_of_a_text_that_is_too_long_is_told_in_smaller_ones(
    kind: type[Any], letter: str
) -> None:
    name = "resp_" + "f" * 40
    wanted = {"response_id": name, "item_id": name, "output_index": 1, "content_index": 0}
    fields = {key: value for key, value in wanted.items() if key in kind.model_fields}
    if kind is CallArgumentsDelta:
        fields["call_id"] = "c" * 64
    max_bytes = 245_760
    event = kind(**fields, delta=letter * 300_000)
    pieces = in_pieces(event, max_bytes)
    assert len(pieces) > 1
    assert all(fits(piece, max_bytes) for piece in pieces)
    assert "".join(piece.delta for piece in pieces) == event.delta
    assert len({piece.event_id for piece in pieces}) == len(pieces)
    short = kind(**fields, delta=letter * 100)
    assert in_pieces(short, max_bytes) == [short]
