"""MCP servers of one response, tools that must be called, and both over other channels."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from daemon_rig import Rig, free_socket, serving
from fake_engine import Script
from mcp_rig import RemoteRig, remote
from rtc_client import calling
from test_mcp import HOSTS, ROME, begin, calls
from test_qwen_dialect import dialect
from test_qwen_dialect import until as until_told
from test_sdk_conversation import client, collect, kinds, of

from daemon.protocol_tools import ForcedRemote, FunctionTool
from daemon.wire_tools import ToolSet

BAKERY = {"type": "function", "name": "bakery"}
LISTED = [
    "conversation.item.added",
    "mcp_list_tools.in_progress",
    "mcp_list_tools.completed",
    "conversation.item.done",
]


@contextlib.asynccontextmanager
async def town_and_client(**settings: Any) -> AsyncIterator[tuple[RemoteRig, Rig, Any]]:
    async with (
        remote() as town,
        serving(**HOSTS, **settings) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        yield town, rig, connection


def made(rig: Rig, number: int) -> tuple[str, str | None, set[str]]:
    """How a response was made: its choice of tools, the one that was forced, those it saw."""
    response = rig.engine.responses[number]
    names = {json.loads(tool)["function"]["name"] for tool in response.tools}
    return response.options.tool_choice, response.options.forced_tool, names


async def ask(rig: Rig, connection: Any, **response: Any) -> list[dict[str, Any]]:
    """One response with calls, up to its end; after it the engine has only words to say."""
    await connection.response.create(response=response)
    events = await collect(connection, "response.created")
    rig.engine.script = Script()
    return [*events, *await collect(connection)]


def choice(**more: Any) -> Any:
    return {"type": "mcp", "server_label": "town", **more}


# ------------------------------------------------------------------------------- forced
async def test_a_session_forces_a_tool_of_a_server_and_the_reply_goes_on_freely() -> None:
    async with town_and_client() as (town, rig, connection):
        await begin(connection, BAKERY, town.tool())
        await connection.session.update(
            session={"type": "realtime", "tool_choice": choice(name="weather")}
        )
        (updated,) = await collect(connection, "session.updated")
        assert updated["session"]["tool_choice"] == choice(name="weather")
        rig.engine.script = calls(("weather", ROME))
        await ask(rig, connection)
        await collect(connection)
        assert town.called == ["Rome"]
        seen = {"bakery", "weather", "broken", "slow", "long"}
        assert made(rig, 0) == ("required", "weather", seen)
        assert made(rig, 1) == ("auto", None, seen)


async def test_a_response_must_call_any_tool_of_a_server_and_sees_no_others() -> None:
    async with town_and_client() as (town, rig, connection):
        await begin(connection, BAKERY, town.tool(allowed_tools=["weather", "long"]))
        rig.engine.script = calls(("weather", ROME))
        await ask(rig, connection, tool_choice=choice())
        await collect(connection)
        assert made(rig, 0) == ("required", None, {"weather", "long"})
        assert made(rig, 1) == ("auto", None, {"bakery", "weather", "long"})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (choice(name="bakery"), "has listed no tool 'bakery'"),
        (choice(server_label="city"), "'city' has listed no tools"),
    ],
)
async def test_what_no_server_has_can_not_be_forced(wanted: Any, message: str) -> None:
    async with town_and_client() as (town, rig, connection):
        await begin(connection, BAKERY, town.tool())
        await connection.response.create(response={"tool_choice": wanted}, event_id="mine")
        (error,) = await collect(connection, "error")
        assert message in error["error"]["message"]
        assert (error["error"]["param"], error["error"]["event_id"]) == (
            "response.tool_choice",
            "mine",
        )
        assert not rig.engine.responses


def test_until_a_server_has_listed_its_tools_the_choice_is_free() -> None:
    tools = ToolSet((FunctionTool(type="function", name="bakery"),), ())
    shown, terms = tools.terms(ForcedRemote(type="mcp", server_label="town"))
    assert len(shown) == 1
    assert terms == {"tool_choice": "auto", "forced_tool": None}


# ------------------------------------------------------------------------------- of one response
async def test_a_response_has_a_server_of_its_own() -> None:
    async with town_and_client() as (town, rig, connection):
        await collect(connection, "session.created")
        rig.engine.script = calls(("weather", ROME))
        events = await ask(
            rig, connection, tools=[BAKERY, town.tool()], tool_choice=choice(name="weather")
        )
        assert kinds(events)[:5] == [*LISTED, "response.created"]
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert (item["type"], item["output"]) == ("mcp_call", "sunny in Rome")
        events = await collect(connection)
        assert kinds(events)[0] == "response.created", "the answer lists nothing again"
        await connection.response.create()
        await collect(connection)
        seen = {"bakery", "weather", "broken", "slow", "long"}
        assert made(rig, 0) == ("required", "weather", seen)
        assert made(rig, 1) == ("auto", None, seen)
        assert made(rig, 2) == ("none", None, set())


async def test_a_response_takes_a_server_of_the_session_by_its_label() -> None:
    async with town_and_client() as (town, rig, connection):
        await begin(connection, BAKERY, town.tool(allowed_tools=["weather"]))
        rig.engine.script = calls(("weather", ROME))
        events = await ask(rig, connection, tools=[{"type": "mcp", "server_label": "town"}])
        assert kinds(events)[0] == "response.created", "its tools are known"
        await collect(connection)
        assert town.called == ["Rome"]
        assert made(rig, 0) == made(rig, 1) == ("auto", None, {"weather"})


async def test_a_response_is_made_without_a_server_that_does_not_answer() -> None:
    async with town_and_client() as (town, rig, connection):
        await collect(connection, "session.created")
        tool = {**town.tool(), "server_url": "http://127.0.0.1:9/mcp"}
        await connection.response.create(response={"tools": [tool]})
        events = await collect(connection)
        assert kinds(events)[:5] == [
            *LISTED[:2],
            "mcp_list_tools.failed",
            "conversation.item.done",
            "response.created",
        ]
        assert of(events, "response.done")[0]["response"]["status"] == "completed"
        assert made(rig, 0) == ("none", None, set())


async def test_a_response_that_waits_for_a_server_can_be_cancelled() -> None:
    with free_socket() as silent:
        async with town_and_client(mcp__timeout_s=1.0) as (town, rig, connection):
            await collect(connection, "session.created")
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
            asked = {"tools": [{**town.tool(), "server_url": url}]}
            await connection.response.create(response=asked, event_id="first")
            await collect(connection, "mcp_list_tools.in_progress")
            await connection.response.create(response=asked, event_id="second")
            (error,) = await collect(connection, "error")
            assert error["error"]["event_id"] == "second"
            await connection.response.cancel()
            events = await collect(connection, "error")
            assert kinds(events) == [
                "mcp_list_tools.failed",
                "conversation.item.done",
                "error",
            ]
            error = events[-1]["error"]
            assert (error["code"], error["event_id"]) == ("response_cancelled", "first")
            await connection.response.create()
            await collect(connection)
            assert len(rig.engine.responses) == 1


# ------------------------------------------------------------------------------- other channels
async def test_the_qwen_dialect_has_them_too() -> None:
    async with remote() as town, serving(**HOSTS) as rig, dialect(rig) as socket:
        tool = town.tool(allowed_tools=["weather"], authorization="secret-1")
        sent = {"type": "session.update", "session": {"tools": [tool]}}
        await socket.send(json.dumps(sent))
        session = (await until_told(socket, "session.updated"))["session"]
        assert session["tools"] == [town.tool(allowed_tools=["weather"])]
        await until_told(socket, "mcp_list_tools.completed")
        rig.engine.script = calls(("weather", ROME))
        await socket.send('{"type": "response.create"}')
        await until_told(socket, "response.mcp_call.in_progress")
        rig.engine.script = Script()
        (item,) = (await until_told(socket, "response.done"))["response"]["output"]
        assert (item["type"], item["output"]) == ("mcp_call", "sunny in Rome")
        spoken = (await until_told(socket, "response.done"))["response"]["output"][0]
        assert spoken["content"][0]["type"] == "audio"


async def test_a_call_by_webrtc_has_them_too() -> None:
    async with remote() as town, serving(**HOSTS) as rig, calling(rig) as caller:
        session = {"type": "realtime", "tools": [town.tool()]}
        caller.send(type="session.update", session=session)
        await caller.wait_for("mcp_list_tools.completed")
        rig.engine.script = calls(("weather", ROME))
        caller.send(type="response.create")
        await caller.wait_for("response.mcp_call.in_progress")
        rig.engine.script = Script()
        await caller.wait_for("output_audio_buffer.started")
        await caller.wait_for("response.done", 2)
        (item,) = of(caller.events, "response.done")[0]["response"]["output"]
        assert (item["type"], item["output"]) == ("mcp_call", "sunny in Rome")
        assert "user: -> sunny in Rome" in rig.engine.context.story
