"""Tools of remote MCP servers: listed, called by the daemon, approved by the client, failing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from daemon_rig import serving, until
from fake_engine import Script
from mcp_rig import RemoteRig, remote
from test_sdk_conversation import client, collect, kinds, of

from daemon import protocol_mcp, remote_tools
from daemon.protocol import ProtocolError

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
        await collect(connection)


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


async def approval(town: RemoteRig, rig: Any, connection: Any) -> dict[str, Any]:
    """A response that asks for approval; returns the request."""
    await begin(connection, town.tool(require_approval={"never": {"tool_names": ["long"]}}))
    rig.engine.script = calls(("weather", ROME))
    events = await ask(rig, connection)
    assert kinds(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]
    (item,) = of(events, "response.done")[0]["response"]["output"]
    assert (item["type"], item["name"], item["arguments"]) == (
        "mcp_approval_request",
        "weather",
        ROME,
    )
    assert town.called == []
    return item


async def decide(connection: Any, item: dict[str, Any], approve: bool, **more: Any) -> None:
    await connection.conversation.item.create(
        item={
            "id": "mine",
            "type": "mcp_approval_response",
            "approval_request_id": item["id"],
            "approve": approve,
            **more,
        }
    )


async def test_a_call_waits_for_approval_and_is_made_then() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        request = await approval(town, rig, connection)
        await decide(connection, request, approve=True)
        events = await collect(connection, "response.created")
        assert kinds(events) == [
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.added",
            "response.mcp_call.in_progress",
            "response.mcp_call.completed",
            "conversation.item.done",
            "response.created",
        ]
        answer, call = events[1]["item"], events[5]["item"]
        assert (answer["type"], answer["approve"]) == ("mcp_approval_response", True)
        assert events[2]["previous_item_id"] == answer["id"] == "mine"
        assert call["approval_request_id"] == request["id"]
        assert (call["type"], call["output"]) == ("mcp_call", "sunny in Rome")
        assert town.called == ["Rome"]
        await collect(connection)
        assert "user: -> sunny in Rome" in rig.engine.context.story
        await decide(connection, request, approve=True)
        (error,) = await collect(connection, "error")
        assert error["error"]["param"] == "item.approval_request_id"


async def test_a_call_that_is_not_approved_is_not_made() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        request = await approval(town, rig, connection)
        await decide(connection, request, approve=False, reason="Not today.")
        events = await collect(connection)
        assert of(events, "response.done")[0]["response"]["status"] == "completed"
        assert town.called == []
        (told,) = [line for line in rig.engine.context.story if "->" in line]
        assert told.endswith("not allow this call. Not today.")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("broken", {"type": "tool_execution_error", "message": "out of order"}),
        ("slow", {"type": "tool_execution_error", "message": "did not answer in time"}),
    ],
)
async def test_a_tool_that_fails_is_told_to_the_client_and_the_model(
    name: str, error: dict[str, str]
) -> None:
    async with (
        remote() as town,
        serving(**HOSTS, mcp__timeout_s=1.0) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls((name, "{}"))
        events = await ask(rig, connection)
        assert "response.mcp_call.failed" in kinds(events)
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert item["error"]["type"] == error["type"]
        assert error["message"] in item["error"]["message"]
        assert "output" not in item
        await collect(connection)
        (told,) = [line for line in rig.engine.context.story if "->" in line]
        assert error["message"] in told


async def test_a_tool_that_is_waited_for_can_be_cancelled() -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("slow", "{}"))
        await connection.response.create()
        await collect(connection, "response.mcp_call.in_progress")
        await town.is_slow.wait()
        await connection.response.cancel()
        events = await collect(connection)
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert item["error"]["message"] == "The call was cancelled."
        await connection.response.cancel()
        (error,) = await collect(connection, "error")
        assert error["error"]["code"] == "response_cancel_not_active"


async def test_another_response_does_not_wait_for_a_tool() -> None:
    async with (
        remote() as town,
        serving(**HOSTS, mcp__timeout_s=3.0) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("slow", "{}"))
        await connection.response.create()
        await collect(connection, "response.mcp_call.in_progress")
        await town.is_slow.wait()
        rig.engine.script = Script()
        await connection.response.create()
        events = await collect(connection, "response.created")
        assert kinds(events)[-4:] == [
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
            "response.created",
        ]
        await collect(connection)
        events = await collect(connection, "conversation.item.done")
        assert kinds(events) == ["response.mcp_call.failed", "conversation.item.done"]


async def test_a_long_answer_is_cut() -> None:
    async with (
        remote() as town,
        serving(**HOSTS, mcp__max_output_chars=100) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("long", "{}"))
        events = await ask(rig, connection)
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert item["output"] == "x" * 100 + "\n[The rest was too long.]"
        await collect(connection)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"server_url": "http://127.0.0.1:9/mcp"}, "could not be reached"),
        ({"path": "/elsewhere"}, ""),
    ],
)
async def test_a_server_that_does_not_answer_fails_its_listing_alone(
    change: dict[str, str], reason: str
) -> None:
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        tool = town.tool()
        tool["server_url"] = change.get("server_url", f"http://127.0.0.1:{town.port}/elsewhere")
        events = await begin(connection, tool)
        assert kinds(events) == [
            "conversation.item.added",
            "mcp_list_tools.in_progress",
            "mcp_list_tools.failed",
            "conversation.item.done",
        ]
        item = events[-1]["item"]
        assert (item["server_label"], item["tools"]) == ("town", [])
        assert reason in item["error"]["message"]
        await connection.response.create()
        events = await collect(connection)
        assert of(events, "response.done")[0]["response"]["status"] == "completed"


async def test_an_answer_beyond_the_bound_of_bytes_fails() -> None:
    async with (
        remote() as town,
        serving(**HOSTS, mcp__max_response_bytes=20_000) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("long", "{}"))
        events = await ask(rig, connection)
        (item,) = of(events, "response.done")[0]["response"]["output"]
        assert "output" not in item
        assert item["error"]["type"] in ("tool_execution_error", "protocol_error")
        await collect(connection)


async def test_a_model_that_only_calls_tools_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_tools, "MAX_ROUNDS", 2)
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = calls(("weather", ROME))
        await connection.response.create()
        events = await collect(connection, "error")
        assert of(events, "error")[0]["error"]["code"] == "too_many_tool_calls"
        assert len(of(events, "response.done")) == 3
        assert town.called == ["Rome"] * 3


async def test_a_response_that_is_cancelled_ends_before_its_tools_answer() -> None:
    script = Script(words=(), num_frames=0, calls=(("slow", "{}"), ("weather", ROME)), holds_at=4)
    async with (
        remote() as town,
        serving(**HOSTS) as rig,
        client(rig).realtime.connect(model="m") as connection,
    ):
        await begin(connection, town.tool())
        rig.engine.script = script
        await connection.response.create()
        await collect(connection, "response.mcp_call.in_progress")
        await town.is_slow.wait()
        await connection.response.cancel()
        events = await collect(connection)
        assert "response.mcp_call.failed" not in kinds(events)
        done = of(events, "response.done")[0]["response"]
        assert done["status"] == "cancelled"
        assert town.called == ["slow"]


def test_without_the_sdk_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_mcp.importlib.util, "find_spec", lambda _: None)
    tool = protocol_mcp.McpTool(type="mcp", server_label="x", server_url="https://a.example/mcp")
    with pytest.raises(ProtocolError, match=r"omnid\[mcp\]"):
        protocol_mcp.check_reachable(tool, ["A.example"], param="session.tools[0]")
