"""Whatever a client sends over WebSocket gets one answer; limits close with their code."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from daemon_rig import Rig, serving, silence, tone, until
from fake_engine import Script
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

B64 = base64.b64encode
MCP = {"type": "mcp", "server_label": "x", "server_url": "http://elsewhere.example/mcp"}
FUNCTION = {"type": "function", "name": "f"}
UPDATE: dict[str, Any] = {"type": "session.update", "event_id": "e1"}


def update(**session: Any) -> str:
    return json.dumps({**UPDATE, "session": {"type": "realtime", **session}})


def audio(**value: Any) -> str:
    return update(audio=value)


def item(**fields: Any) -> str:
    return json.dumps({"type": "conversation.item.create", "event_id": "e1", "item": fields})


def user(part: dict[str, Any]) -> str:
    return item(type="message", role="user", content=[part])


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "event_id": "e1", **fields})


BAD: list[tuple[str | bytes, str, str | None]] = [
    ("", "invalid_json", None),
    ("{", "invalid_json", None),
    ("[]", "invalid_json", None),
    ("[" * 100_000, "invalid_json", None),
    ('{"a":' * 5_000, "invalid_json", None),
    ('{"type": "input_audio_buffer.commit", "x": NaN}', "invalid_json", None),
    (b"\xff\xfe\x00", "invalid_json", None),
    ("{}", "invalid_event", "type"),
    (event("no.such.event"), "invalid_value", "type"),
    ('{"type": 7, "event_id": "e1"}', "invalid_value", "type"),
    (event("input_audio_buffer.commit", more=1), "unknown_parameter", "more"),
    (event("input_audio_buffer.append"), "missing_required_parameter", "audio"),
    (event("input_audio_buffer.append", audio=5), "invalid_value", "audio"),
    (event("input_audio_buffer.append", audio="!!!"), "invalid_value", "audio"),
    (event("input_audio_buffer.commit"), "input_audio_buffer_commit_empty", None),
    (event("input_image_buffer.append", image="AAAA"), "invalid_value", "type"),
    (event("response.cancel"), "response_cancel_not_active", None),
    (
        event("conversation.item.retrieve", item_id="nope"),
        "item_retrieve_invalid_item_id",
        "item_id",
    ),
    (event("conversation.item.delete", item_id="nope"), "item_delete_invalid_item_id", "item_id"),
    (
        event("conversation.item.truncate", item_id="no", content_index=1, audio_end_ms=1),
        "invalid_value",
        "content_index",
    ),
    (
        event("conversation.item.truncate", item_id="no", content_index=0, audio_end_ms=1),
        "item_truncate_invalid_item_id",
        "item_id",
    ),
    (event("session.update"), "missing_required_parameter", "session"),
    (event("session.update", session={}), "missing_required_parameter", "session.type"),
    (update(model="m" * 257), "invalid_value", "session.model"),
    (update(reasoning={"effort": "banana"}), "invalid_value", "session.reasoning.effort"),
    (update(reasoning={"x": [1]}), "unknown_parameter", "session.reasoning.x"),
    (
        event("response.create", response={"reasoning": {"effort": 1}}),
        "invalid_value",
        "response.reasoning.effort",
    ),
    (update(x_sampling={"seed": 1}), "unknown_parameter", "session.x_sampling"),
    (update(voice="ash"), "unknown_parameter", "session.voice"),
    (update(tools=[MCP]), "url_not_allowed", "session.tools[0].server_url"),
    (
        update(tools=[{**MCP, "server_label": "a b"}]),
        "invalid_value",
        "session.tools[0].server_label",
    ),
    (
        update(tools=[{**MCP, "headers": {"x": "a\r\nb"}}]),
        "invalid_value",
        "session.tools[0].headers.x",
    ),
    (
        update(tools=[{**MCP, "server_url": "http://127.0.0.1:1\\@elsewhere.example/"}]),
        "invalid_value",
        "session.tools[0].server_url",
    ),
    (
        update(tools=[{**MCP, "server_url": "http://user:secret@elsewhere.example/"}]),
        "invalid_value",
        "session.tools[0].server_url",
    ),
    (
        event("response.create", response={"tools": [MCP]}),
        "url_not_allowed",
        "response.tools[0].server_url",
    ),
    (
        event("response.create", response={"tools": [{"type": "mcp", "server_label": "x"}]}),
        "invalid_value",
        "response.tools[0].server_label",
    ),
    (
        event("response.create", response={"tool_choice": {"type": "mcp", "server_label": "x"}}),
        "invalid_value",
        "response.tool_choice",
    ),
    (
        update(tool_choice={"type": "mcp"}),
        "missing_required_parameter",
        "session.tool_choice.server_label",
    ),
    (update(tools=[{"type": "function", "name": "a b"}]), "invalid_value", "session.tools[0].name"),
    (update(tools=[{"type": "function"}]), "missing_required_parameter", "session.tools[0].name"),
    (update(tools=[FUNCTION, FUNCTION]), "invalid_value", "session.tools"),
    (update(tool_choice="always"), "invalid_value", "session.tool_choice"),
    (update(tool_choice={"type": "function"}), "invalid_value", "session.tool_choice"),
    (update(output_modalities=["text", "audio"]), "invalid_value", "session.output_modalities"),
    (update(max_output_tokens=0), "integer_below_min_value", "session.max_output_tokens"),
    (
        update(truncation={"type": "retention_ratio"}),
        "missing_required_parameter",
        "session.truncation.retention_ratio",
    ),
    (
        update(truncation={"type": "retention_ratio", "retention_ratio": 2}),
        "decimal_above_max_value",
        "session.truncation.retention_ratio",
    ),
    (audio(output={"voice": "nobody"}), "invalid_value", "session.audio.output.voice"),
    (audio(output={"speed": 2}), "decimal_above_max_value", "session.audio.output.speed"),
    (audio(output={"speed": 0.2}), "decimal_below_min_value", "session.audio.output.speed"),
    (audio(output={"speed": True}), "invalid_value", "session.audio.output.speed"),
    (
        audio(input={"format": {"type": "audio/pcm", "rate": 4000}}),
        "integer_below_min_value",
        "session.audio.input.format.rate",
    ),
    (
        audio(input={"format": {"type": "audio/pcm", "rate": 11025}}),
        "integer_below_min_value",
        "session.audio.input.format.rate",
    ),
    (
        audio(input={"format": {"type": "audio/pcm", "rate": 96000}}),
        "integer_above_max_value",
        "session.audio.input.format.rate",
    ),
    (
        audio(output={"format": {"type": "audio/pcm", "rate": 22050}}),
        "integer_below_min_value",
        "session.audio.output.format.rate",
    ),
    (
        audio(output={"format": {"type": "audio/pcmu", "rate": 8000}}),
        "unknown_parameter",
        "session.audio.output.format.rate",
    ),
    (
        audio(output={"format": {"type": "audio/opus"}}),
        "invalid_value",
        "session.audio.output.format.type",
    ),
    *(
        (
            audio(input={"noise_reduction": nameless}),
            "missing_required_parameter",
            "session.audio.input.noise_reduction.type",
        )
        for nameless in ({}, {"strength": 0.5})
    ),
    (
        audio(input={"noise_reduction": {"type": "loud"}}),
        "invalid_value",
        "session.audio.input.noise_reduction.type",
    ),
    (
        audio(input={"noise_reduction": {"type": "near_field", "strength": 1e300}}),
        "decimal_above_max_value",
        "session.audio.input.noise_reduction.strength",
    ),
    *(
        (
            audio(input={"transcription": {"delay": impossible}}),
            "invalid_value",
            "session.audio.input.transcription.delay",
        )
        for impossible in ("banana", "", 200)
    ),
    (
        audio(input={"transcription": {"keywords": [""]}}),
        "invalid_value",
        "session.audio.input.transcription.keywords[0]",
    ),
    (
        audio(input={"turn_detection": {"type": "server_vad", "threshold": 2}}),
        "decimal_above_max_value",
        "session.audio.input.turn_detection.threshold",
    ),
    (
        audio(input={"turn_detection": {"type": "semantic_vad", "threshold": 0.5}}),
        "unknown_parameter",
        "session.audio.input.turn_detection.threshold",
    ),
    *(
        (
            audio(input={"turn_detection": {"type": impossible}}),
            "invalid_value",
            "session.audio.input.turn_detection.type",
        )
        for impossible in ("semantic-vad", 3, ["server_vad"], None)
    ),
    (item(type="mcp_call", server_label="s"), "invalid_value", "item.type"),
    (
        event(
            "conversation.item.create",
            item={"type": "mcp_approval_response", "approval_request_id": "x", "approve": True},
        ),
        "invalid_value",
        "item.approval_request_id",
    ),
    (
        event("conversation.item.create", item={"type": "mcp_approval_response", "approve": True}),
        "missing_required_parameter",
        "item.approval_request_id",
    ),
    (
        event("conversation.item.create", item={"type": "function_call_output", "call_id": "c"}),
        "missing_required_parameter",
        "item.output",
    ),
    (
        event(
            "conversation.item.create",
            item={"type": "function_call", "call_id": "c", "name": "f", "arguments": "[]"},
        ),
        "invalid_value",
        "item.arguments",
    ),
    (user({"type": "output_text", "text": "x"}), "invalid_value", "item"),
    (
        item(type="function_call", call_id="c", name="f", arguments="{}", id="root"),
        "invalid_value",
        "item.id",
    ),
    (
        event(
            "response.create",
            response={
                "input": [
                    json.loads(user({"type": "input_text", "text": "x"}))["item"],
                    json.loads(user({"type": "input_audio", "audio": "AAAA"}))["item"],
                ]
            },
        ),
        "invalid_value",
        "response.input[1].content[0].audio",
    ),
    (
        event(
            "response.create",
            response={
                "input": [
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "[]"},
                ]
            },
        ),
        "invalid_value",
        "response.input[0].arguments",
    ),
    (user({"type": "input_text"}), "invalid_value", "item.content[0]"),
    (
        user({"type": "input_text", "text": "x", "image_url": "file:///etc/passwd"}),
        "unknown_parameter",
        "item.content[0].image_url",
    ),
    (
        user({"type": "input_image", "image_url": "data:image/png;base64,AAAA", "audio": "!"}),
        "unknown_parameter",
        "item.content[0].audio",
    ),
    (
        user({"type": "input_image", "image_url": "https://example.com/x.png"}),
        "invalid_value",
        "item.content[0].image_url",
    ),
    (
        user({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
        "invalid_value",
        "item.content[0].image_url",
    ),
    (user({"type": "input_audio", "audio": "AAAA"}), "invalid_value", "item.content[0].audio"),
    ('{"type":"conversation.item.delete","item_id":"\\ud800"}', "invalid_json", None),
    (
        event("response.create", response={"conversation": "mine"}),
        "invalid_value",
        "response.conversation",
    ),
    (
        event(
            "response.create",
            response={"conversation": "none", "input": [{"type": "item_reference", "id": "no"}]},
        ),
        "item_not_found",
        "response.input[0].id",
    ),
    (
        event("response.create", response={"tool_choice": "required"}),
        "invalid_value",
        "response.tool_choice",
    ),
]


@asynccontextmanager
async def talking(rig: Rig, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(rig.ws + query, compression=None, **options) as socket:
        first = json.loads(await socket.recv())
        assert first["type"] == "session.created"
        yield socket


async def next_event(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        received: dict[str, Any] = json.loads(await socket.recv())
    return received


async def test_each_bad_event_gets_one_error_and_the_session_lives() -> None:
    async with serving() as rig, talking(rig) as socket:
        for sent, code, param in BAD:
            await socket.send(sent)
            answer = await next_event(socket)
            assert answer["type"] == "error", sent[:80]
            error = answer["error"]
            assert (error["code"], error["param"]) == (code, param), (sent[:80], error)
            assert error["type"] == "invalid_request_error"
            echoed = "e1" if isinstance(sent, str) and '"event_id": "e1"' in sent else None
            assert error["event_id"] == echoed, sent[:80]
        await socket.send(update(instructions="still here"))
        updated = await next_event(socket)
        assert updated["type"] == "session.updated", updated
        assert updated["session"]["instructions"] == "still here"


async def test_a_refused_update_changes_nothing() -> None:
    async with serving() as rig, talking(rig) as socket:
        await socket.send(update(instructions="new", audio={"output": {"voice": "nobody"}}))
        assert (await next_event(socket))["type"] == "error"
        await socket.send(update())
        assert (await next_event(socket))["session"]["instructions"] != "new"


async def test_what_stock_clients_send_is_taken() -> None:
    session = {
        "model": "gpt-realtime-2.1",
        "tracing": "auto",
        "include": None,
        "prompt": None,
        "tools": [],
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": True,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
            },
            "output": {"voice": "ash", "speed": 1.0},
        },
    }
    async with serving() as rig, talking(rig) as socket:
        await socket.send(update(**session))
        view = (await next_event(socket))["session"]
        assert view["model"] == "qwen3-omni", "as it was called when the session began"
        assert view["audio"]["output"]["voice"] == "ash"
        assert view["audio"]["input"]["transcription"] == {"model": "gpt-4o-mini-transcribe"}
        assert view["audio"]["input"]["noise_reduction"] == {"type": "near_field", "strength": 1.0}
        assert view["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
        assert view["audio"]["input"]["turn_detection"]["eagerness"] == "low"
        assert rig.engine.context.voice is None
        await socket.send(audio(output={"voice": "ethan"}))
        await next_event(socket)
        assert rig.engine.context.voice == "Ethan"


async def test_truncation_is_shown_as_it_was_asked() -> None:
    ratio = {
        "type": "retention_ratio",
        "retention_ratio": 0.5,
        "token_limits": {"post_instructions": 900},
    }
    async with serving() as rig, talking(rig) as socket:
        (live,) = rig.app.state.sessions._live.values()
        for wanted, is_on in ((ratio, True), ("disabled", False), ("auto", True)):
            await socket.send(update(truncation=wanted))
            assert (await next_event(socket))["session"]["truncation"] == wanted
            assert (live.session.conversation.config.truncation is not None) == is_on


async def test_a_stray_byte_is_joined_and_at_commit_reported() -> None:
    async with serving() as rig, talking(rig) as socket:
        await socket.send(audio(input={"turn_detection": None}))
        await next_event(socket)
        pcm = tone(0.3)
        for piece in (pcm[:5], pcm[5:], b"\x01"):
            await socket.send(event("input_audio_buffer.append", audio=B64(piece).decode()))
        await socket.send(event("input_audio_buffer.commit"))
        answer = await next_event(socket)
        assert (answer["error"]["code"], answer["error"]["param"]) == ("invalid_value", "audio")
        await socket.send(event("input_audio_buffer.commit"))
        committed = await next_event(socket)
        assert committed["type"] == "input_audio_buffer.committed"
        await socket.send(event("conversation.item.retrieve", item_id=committed["item_id"]))
        for _ in range(2):
            await next_event(socket)
        (part,) = (await next_event(socket))["item"]["content"]
        assert abs(len(base64.b64decode(part["audio"])) - len(pcm)) <= 200


async def test_large_appends() -> None:
    async with serving() as rig, talking(rig) as socket:
        biggest = B64(bytes(15 * 1024 * 1024)).decode()
        await socket.send(event("input_audio_buffer.append", audio=biggest))
        await socket.send(event("input_audio_buffer.append", audio=B64(bytes(16 << 20)).decode()))
        answer = await next_event(socket)
        assert answer["error"]["param"] == "audio"
        await socket.send(update())
        assert (await next_event(socket))["type"] == "session.updated"


async def test_a_frame_over_the_limit_closes_with_1009() -> None:
    async with serving(limits__max_message_bytes=100_000) as rig, talking(rig) as socket:
        await socket.send("x" * 100_001)
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1009
        await until(lambda: rig.num_live == 0)


async def write_without_reading(rig: Any, socket: Any) -> None:
    """Ask for errors until the session is given up."""
    long = json.dumps({"type": "x" * 70, "event_id": "e" * 500})
    socket.transport.pause_reading()
    for _ in range(40_000):
        if rig.num_live == 0:
            break
        await socket.send(long)
    await until(lambda: rig.num_live == 0)


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.outbox.STALLED_S", 0.5)
    async with (
        serving(limits__max_outbox_bytes=100_000) as rig,
        talking(rig, max_queue=None) as socket,
    ):
        await write_without_reading(rig, socket)
        assert (
            'omnid_dropped_total{what="slow_client"} 1.0'
            in rig.app.state.sessions.metrics.render().decode()
        )
        socket.transport.resume_reading()
        await socket.wait_closed()
        assert socket.close_code == 1013


async def test_who_never_reads_again_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.outbox.STALLED_S", 0.5)
    monkeypatch.setattr("daemon.closing_protocol.CLOSE_S", 0.3)
    async with (
        serving(limits__max_outbox_bytes=100_000) as rig,
        talking(rig, max_queue=None) as socket,
    ):
        await write_without_reading(rig, socket)
        assert rig.server.server_state.connections, "it may still read on"
        await until(lambda: not rig.server.server_state.connections)
        socket.transport.abort()


async def test_a_client_that_vanishes_stops_the_work_within_a_second() -> None:
    async with serving(Script(holds_at=2)) as rig, talking(rig) as socket:
        await socket.send(user({"type": "input_text", "text": "hi"}))
        await socket.send(event("response.create"))
        await until(lambda: rig.engine.responses)
        socket.transport.abort()
        await until(lambda: rig.engine.response.is_cancelled, timeout_s=1.0)
        await until(lambda: rig.engine.context.is_closed and rig.num_live == 0, timeout_s=1.0)


async def test_a_session_expires() -> None:
    async with serving(session__max_duration_s=1) as rig, talking(rig) as socket:
        answer = await next_event(socket)
        assert answer["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1001
        assert socket.close_reason == answer["error"]["message"]


async def test_the_end_of_the_server_ends_its_sessions() -> None:
    async with serving() as rig, talking(rig) as socket:
        rig.server.should_exit = True
        assert (await next_event(socket))["error"]["code"] == "server_shutting_down"
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1012
        await until(lambda: rig.supervisor.is_closed)
        assert rig.engine.context.is_closed


async def test_extensions_only_for_those_who_ask() -> None:
    async with serving() as rig, talking(rig, "&x-ext=1") as socket:
        await socket.send(
            event(
                "input_audio_buffer.append",
                audio=B64(silence(0.4) + tone(0.5) + silence(0.8)).decode(),
            )
        )
        seen = []
        while "x.metrics" not in [each["type"] for each in seen]:
            seen.append(await next_event(socket))
        states = [each["state"] for each in seen if each["type"] == "x.turn.state"]
        assert states[:2] == ["hearing", "thinking"]
        metrics = seen[-1]
        assert metrics["stages_ms"]["first_pcm"] == 12.0
        assert metrics["stages_ms"]["turn_end"] > 0
        await socket.send(event("input_image_buffer.append", image="AAAA"))
        while (answer := await next_event(socket))["type"] != "error":
            pass
        assert answer["error"]["param"] == "image"


async def test_noise_reduction_is_shown_as_it_is_in_effect() -> None:
    async with serving() as rig, talking(rig) as socket:
        for wanted, shown in (
            ({"type": "far_field"}, {"type": "far_field", "strength": 1.0}),
            (
                {"type": "far_field", "strength": 0.5},
                {"type": "far_field", "strength": 0.5},
            ),
            ({"type": "near_field"}, {"type": "near_field", "strength": 0.5}),
            (None, None),
            ({"type": "near_field"}, {"type": "near_field", "strength": 1.0}),
        ):
            await socket.send(audio(input={"noise_reduction": wanted}))
            updated = await next_event(socket)
            assert updated["session"]["audio"]["input"]["noise_reduction"] == shown
        await socket.send(audio(input={"noise_reduction": {"type": "near_field", "strength": -1}}))
        assert (await next_event(socket))["error"]["param"].endswith("noise_reduction.strength")


async def test_what_is_refused_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "daemon.realtime")
    async with serving() as rig, talking(rig) as socket:
        for _ in range(50):
            await socket.send("{}")
        for _ in range(50):
            assert (await next_event(socket))["type"] == "error"
    told = [each for each in caplog.messages if each.startswith("refused ")]
    assert len(told) == 20
    assert told[-1] == "refused code=invalid_event param=type number=20"
