"""Function calls through the unchanged SDK: streamed, answered, parallel, forced, interrupted."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from daemon_rig import serving, tone, until
from fake_engine import Script
from test_sdk_conversation import client, collect, kinds, of
from wire_client import TURN, wire

ROME = '{"in": "Rome"}'
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "How it is there",
    "parameters": {"type": "object", "properties": {"in": {"type": "string"}}},
}
CALL = [
    "response.output_item.added",
    "conversation.item.added",
    "<deltas>",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "conversation.item.done",
]
END = ["response.done", "rate_limits.updated"]
ONLY_A_CALL = Script(words=(), num_frames=0, calls=(("weather", ROME),))


async def begin(connection: Any, **session: Any) -> dict[str, Any]:
    await collect(connection, "session.created")
    await connection.session.update(session={"type": "realtime", "tools": [WEATHER], **session})
    (updated,) = await collect(connection, "session.updated")
    found: dict[str, Any] = updated["session"]
    return found


async def ask(connection: Any, **response: Any) -> list[dict[str, Any]]:
    await connection.response.create(response=response)
    return await collect(connection)


async def answer(connection: Any, call_id: str, output: str) -> list[dict[str, Any]]:
    await connection.conversation.item.create(
        item={"type": "function_call_output", "call_id": call_id, "output": output}
    )
    return await collect(connection, "conversation.item.done")


async def test_a_call_is_streamed_answered_and_remembered() -> None:
    async with serving(ONLY_A_CALL) as rig, client(rig).realtime.connect(model="m") as connection:
        session = await begin(connection)
        assert session["tools"] == [WEATHER]
        assert session["tool_choice"] == "auto"
        shown = json.loads(rig.engine.context.tools[0])
        assert shown["function"]["name"] == "weather"
        assert shown["function"]["parameters"] == WEATHER["parameters"]
        events = await ask(connection)
        assert kinds(events) == ["response.created", *CALL, *END]
        assert rig.engine.response.options.tool_choice == "auto"
        added, done = events[1]["item"], of(events, "response.done")[0]["response"]
        assert (added["type"], added["arguments"], added["status"]) == (
            "function_call",
            "",
            "in_progress",
        )
        (last,) = of(events, "response.function_call_arguments.done")
        deltas = of(events, "response.function_call_arguments.delta")
        assert "".join(event["delta"] for event in deltas) == last["arguments"] == ROME
        assert {event["call_id"] for event in [*deltas, last]} == {added["call_id"]}
        assert done["status"] == "completed"
        assert [item["arguments"] for item in done["output"]] == [ROME]
        events = await answer(connection, added["call_id"], "sunny")
        assert [event["item"]["output"] for event in events] == ["sunny", "sunny"]
        assert events[0]["previous_item_id"] == added["id"]
        rig.engine.script = Script()
        events = await ask(connection)
        assert of(events, "response.done")[0]["response"]["status"] == "completed"
        assert "user: -> sunny" in rig.engine.context.story


async def test_words_and_parallel_calls_each_have_an_item() -> None:
    calls = (("weather", ROME), ("weather", '{"in": "Oslo"}'))
    script = Script(calls=calls)
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        events = await ask(connection)
        assert kinds(events)[:5] == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "<deltas>",
        ]
        added = of(events, "response.output_item.added")
        assert [event["output_index"] for event in added] == [0, 1, 2]
        output = of(events, "response.done")[0]["response"]["output"]
        assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
        assert [item["arguments"] for item in output[1:]] == [arguments for _, arguments in calls]
        assert len({item["call_id"] for item in output[1:]}) == 2
        places = of(events, "conversation.item.added")
        assert [event["previous_item_id"] for event in places] == [None, *ids(output)[:2]]


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", ("none", None)),
        ("required", ("required", None)),
        ({"type": "function", "name": "weather"}, ("required", "weather")),
    ],
)
async def test_tool_choice_reaches_the_engine(choice: Any, expected: tuple[Any, Any]) -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        session = await begin(connection, tool_choice=choice)
        assert session["tool_choice"] == choice
        await ask(connection)
        options = rig.engine.response.options
        assert (options.tool_choice, options.forced_tool) == expected
        await ask(connection, tool_choice="auto")
        assert rig.engine.response.options.tool_choice == "auto"


FORCED = {"type": "function", "name": "weather"}
REMOTE = {"type": "mcp", "server_label": "town", "name": "weather"}


@pytest.mark.parametrize("choice", ["required", FORCED, REMOTE])
async def test_a_choice_may_come_before_its_tools(choice: Any) -> None:
    """Only a response that is asked for with it is refused, and what came with it is not lost."""
    async with serving() as rig, wire(rig) as client:
        view = await client.update(tool_choice=choice, instructions="Be brief.")
        assert (view["tool_choice"], view["instructions"]) == (choice, "Be brief.")
        for response, param in (
            ({}, "session.tool_choice"),
            ({"tools": []}, "response.tool_choice"),
            ({"tool_choice": choice}, "response.tool_choice"),
        ):
            await client.send("response.create", response=response)
            error = await client.error()
            assert (error["code"], error["param"]) == ("invalid_value", param)
        assert not rig.engine.responses
        view = await client.update(tools=[WEATHER])
        if choice != REMOTE:
            await client.reply()
            assert rig.engine.response.options.tool_choice == "required"
        view = await client.update(tools=[])
        assert (view["tools"], view["tool_choice"]) == ([], choice)


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        ("required", [], "none"),
        (FORCED, [], "none"),
        (FORCED, [{**WEATHER, "name": "news"}], "auto"),
        (REMOTE, [WEATHER], "auto"),
    ],
)
async def test_a_turn_is_answered_though_its_choice_can_not_be_met(
    choice: Any, tools: list[Any], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as rig, wire(rig) as client:
        await client.update(tool_choice=choice, tools=tools)
        for _ in range(2):
            await client.append(TURN)
            done = (await client.until("response.done"))[-1]["response"]
            assert done["status"] == "completed"
            options = rig.engine.response.options
            assert (options.tool_choice, options.forced_tool) == (expected, None)
            await client.until("rate_limits.updated")
        assert not client.of("error")
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len([text for text in warnings if "may call what it likes" in text]) == 1


async def test_without_tools_none_is_called() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection, tools=[])
        await ask(connection)
        assert rig.engine.response.options.tool_choice == "none"


async def test_an_answer_to_an_unknown_call_is_refused() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        await connection.conversation.item.create(
            event_id="mine",
            item={"type": "function_call_output", "call_id": "call_x", "output": "?"},
        )
        (error,) = await collect(connection, "error")
        assert error["error"]["param"] == "item.call_id"
        assert error["error"]["event_id"] == "mine"
        assert rig.engine.context.story == []


async def test_the_id_of_a_call_is_taken_once() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ROME}
    async with serving() as rig, wire(rig) as connection:
        await connection.send("conversation.item.create", item=call)
        await connection.until("conversation.item.done")
        await connection.send("conversation.item.create", item=call)
        error = await connection.error()
        assert (error["code"], error["param"]) == ("invalid_tool_call_id", "item.call_id")
        assert rig.engine.context.story == [f"assistant: weather({ROME})"]


async def test_the_user_may_speak_while_a_call_is_pending() -> None:
    async with serving(ONLY_A_CALL) as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        events = await ask(connection)
        call = of(events, "response.done")[0]["response"]["output"][0]
        rig.engine.script = Script()
        sound = tone(0.5) + bytes(48_000)
        await connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
        events = await collect(connection)
        assert of(events, "response.done")[0]["response"]["status"] == "completed"
        await answer(connection, call["call_id"], "late")
        await until(lambda: "user: -> late" in rig.engine.context.story)


async def test_a_call_that_is_cut_off_is_incomplete_and_forgotten() -> None:
    script = Script(words=(), num_frames=0, calls=(("weather", ROME),), holds_at=8)
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        await connection.response.create()
        await collect(connection, "response.function_call_arguments.delta")
        await connection.response.cancel()
        events = await collect(connection)
        done = of(events, "response.done")[0]["response"]
        assert done["status"] == "cancelled"
        assert done["output"][0]["status"] == "incomplete"
        assert kinds(events)[-4:] == [*CALL[-2:], *END]
        await until(lambda: rig.engine.context.story == [])
        await connection.conversation.item.delete(item_id=done["output"][0]["id"])
        await collect(connection, "conversation.item.deleted")


async def test_a_replayed_conversation_with_calls_is_told_to_the_engine() -> None:
    """How clients rebuild a conversation after a dropped connection."""
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        for item in (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "?"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ROME},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ):
            await connection.conversation.item.create(item=item)
            await collect(connection, "conversation.item.done")
        await asyncio.sleep(0)
        assert rig.engine.context.story == [
            "user: ?",
            f"assistant: weather({ROME})",
            "user: -> sunny",
        ]
