"""Tools of remote MCP servers: listed, called by the daemon, approved by the client, failing."""

from __future__ import annotations

import json
from typing import Any

from daemon_rig import serving, until
from fake_engine import Script
from mcp_rig import remote
from test_sdk_conversation import client, collect, kinds, of

ROME = '{"place": "Rome"}'
HOSTS = {"mcp__hosts": ("127.0.0.1",)}


def calls(*made: tuple[str, str]) -> Script:
    return Script(words=(), num_frames=0, calls=made)


async def begin(connection: Any, *tools: dict[str, Any]) -> list[dict[str, Any]]:
    """Name the tools; returns the events of the listing."""
    await collect(connection, "session.created")
    await connection.session.update(session={"type": "realtime", "tools": list(tools)})
    await collect(connection, "session.updated")
    return await collect(connection, "conversation.item.done")


async def ask(rig: Any, connection: Any) -> list[dict[str, Any]]:
    """One response with calls, up to its end; after it the engine has only words to say."""
    await connection.response.create()
    events = await collect(connection, "response.created")
    rig.engine.script = Script()
    return [*events, *await collect(connection)]


async def test_tools_are_listed_called_and_the_reply_goes_on() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        events = await begin(
            connection,
            town.tool(
                authorization="secret-1", headers={"x-team": "ours"}, allowed_tools=["weather"]
            ),
        )
        assert kinds(events) == [
            "conversation.item.added",
            "mcp_list_tools.in_progress",
            "mcp_list_tools.completed",
            "conversation.item.done",
        ]
        assert events[0]["item"]["tools"] == []
        (listed,) = events[-1]["item"]["tools"]
        assert listed["name"] == "weather"
        assert listed["annotations"] == {"readOnlyHint": True}
        assert town.tokens == {"Bearer secret-1", "ours"}
        shown = json.loads(rig.engine.context.tools[0])["function"]
        assert (shown["name"], shown["description"]) == ("weather", "How it is there")
        rig.engine.script = calls(("weather", ROME))
        events = await ask(rig, connection)
        assert kinds(events) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "<deltas>",
            "response.mcp_call_arguments.done",
            "response.mcp_call.in_progress",
            "response.mcp_call.completed",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
            "rate_limits.updated",
        ]
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert (item["type"], item["server_label"], item["name"]) == ("mcp_call", "town", "weather")
        assert (item["arguments"], item["output"]) == (ROME, "sunny in Rome")
        assert town.called == ["Rome"]
        events = await collect(connection)
        assert of(events, "response.done")[0]["response"]["status"] == "completed"
        assert "user: -> sunny in Rome" in rig.engine.context.story
        added = of(events, "conversation.item.added")
        assert [event["previous_item_id"] for event in added] == [item["id"]]


async def test_what_lets_the_daemon_in_is_never_shown() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await collect(connection, "session.created")
        tool = town.tool(authorization="secret-1", headers={"x-team": "secret-2"})
        await connection.session.update(session={"type": "realtime", "tools": [tool]})
        (updated,) = await collect(connection, "session.updated")
        (shown,) = updated["session"]["tools"]
        assert shown["server_label"] == "town"
        assert "secret" not in json.dumps(updated)
        events = await collect(connection, "conversation.item.done")
        assert "secret" not in json.dumps(events)


async def test_parallel_calls_are_answered_in_their_order_before_the_reply_goes_on() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("weather", ROME), ("weather", '{"place": "Oslo"}'))
        events = await ask(rig, connection)
        output = of(events, "response.done")[0]["response"]["output"]
        assert [item["output"] for item in output] == ["sunny in Rome", "sunny in Oslo"]
        await collect(connection)
        story = rig.engine.context.story
        answers = [line for line in story if "->" in line]
        assert answers == ["user: -> sunny in Rome", "user: -> sunny in Oslo"]


async def test_a_tool_gives_way_to_a_function_of_the_same_name() -> None:
    function = {"type": "function", "name": "weather"}
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, function, town.tool(allowed_tools={"read_only": True}))
        names = [json.loads(tool)["function"]["name"] for tool in rig.engine.context.tools]
        assert names == ["weather", "town.weather"]
        rig.engine.script = calls(("town.weather", ROME))
        events = await ask(rig, connection)
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert (item["name"], item["output"]) == ("weather", "sunny in Rome")


async def test_a_deleted_call_takes_its_answer_along() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("weather", ROME))
        events = await ask(rig, connection)
        (item,) = of(events, "response.done")[0]["response"]["output"]
        await collect(connection)
        await connection.conversation.item.delete(item_id=item["id"])
        await collect(connection, "conversation.item.deleted")
        await until(lambda: not any("Rome" in line for line in rig.engine.context.story))
        await connection.session.update(session={"type": "realtime", "tools": []})
        events = await collect(connection, "session.updated")
        assert kinds(events) == ["session.updated"]
        assert rig.engine.context.tools == ()
