"""Responses beside the conversation, and responses with terms of their own."""

from __future__ import annotations

from typing import Any

from daemon_rig import serving, until
from fake_engine import Script
from test_sdk_conversation import client, collect, kinds, of

HELLO = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "hello"}],
}


async def begin(connection: Any) -> str:
    """A conversation of one item; returns its id."""
    await collect(connection, "session.created")
    await connection.conversation.item.create(item=HELLO)
    (_, done) = await collect(connection, "conversation.item.done")
    return str(done["item"]["id"])


async def test_runs_beside_a_reply_and_leaves_no_item() -> None:
    script = Script(holds_at=2)
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        await connection.response.create()
        await collect(connection, "response.output_audio.delta")
        rig.engine.script = Script(words=("Aside",), num_frames=0)
        await connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"topic": "x"},
            }
        )
        events = await collect(connection, "response.done")
        mine = [event for event in events if response_id(event) == response_id(events[-1])]
        assert kinds(mine) == [
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "<deltas>",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
        ]
        assert "conversation.item.added" not in kinds(events)
        for event in (mine[0], mine[-1]):
            assert event["response"]["conversation_id"] is None
            assert event["response"]["metadata"] == {"topic": "x"}
        assert mine[-1]["response"]["output"][0]["content"][0]["text"] == "Aside"
        assert rig.engine.contexts[1].story == ["user: hello", "assistant: Aside"]
        await until(lambda: rig.engine.contexts[1].is_closed)
        rig.engine.responses[0].go_on()
        events = await collect(connection, "response.done")
        assert events[-1]["response"]["status"] == "completed"


def response_id(event: dict[str, Any]) -> str | None:
    return event.get("response_id") or event.get("response", {}).get("id")


async def test_input_replaces_the_conversation() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        item_id = await begin(connection)
        system = {
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": "Judge."}],
        }
        reference = {"type": "item_reference", "id": item_id}
        for given, story in (
            ([], []),
            ([system, reference], ["system: Judge.", "user: hello"]),
        ):
            await connection.response.create(
                response={"conversation": "none", "input": given, "instructions": "Only this."}
            )
            await collect(connection)
            context = rig.engine.contexts[-1]
            assert context.instructions == "Only this."
            assert context.story[:-1] == story
        assert rig.engine.contexts[0].story == ["user: hello"]


async def test_cancelled_by_its_id_only() -> None:
    script = Script(holds_at=1)
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        await connection.response.create(response={"conversation": "none"})
        events = await collect(connection, "response.output_audio.delta")
        await connection.response.cancel()
        (error,) = of(await collect(connection, "error"), "error")
        assert error["error"]["code"] == "response_cancel_not_active"
        await connection.response.cancel(response_id=events[0]["response"]["id"])
        done = of(await collect(connection), "response.done")[0]["response"]
        assert done["status_details"]["reason"] == "client_cancelled"
        assert done["output"][0]["status"] == "incomplete"


async def test_a_reply_in_the_conversation_with_terms_of_its_own() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection)
        context = rig.engine.context
        session_terms = (context.instructions, context.voice, context.tools)
        seen: list[tuple[Any, ...]] = []
        respond = context.respond
        context.respond = lambda *given, **more: (  # type: ignore[method-assign]
            seen.append((context.instructions, context.voice)),
            respond(*given, **more),
        )[1]
        await connection.response.create(
            response={
                "instructions": "In verse.",
                "audio": {"output": {"voice": "Chelsie"}},
                "max_output_tokens": 7,
            }
        )
        events = await collect(connection)
        created = of(events, "response.created")[0]["response"]
        assert created["audio"]["output"]["voice"] == "Chelsie"
        assert created["max_output_tokens"] == 7
        assert seen == [("In verse.", "Chelsie")]
        assert rig.engine.response.options.max_tokens == 7
        assert (context.instructions, context.voice, context.tools) == session_terms
        assert context.story == ["user: hello", "assistant: One two three four"]


async def test_an_input_of_its_own_for_a_reply_in_the_conversation() -> None:
    """Section 15: `input` replaces the context; the answer becomes a part of the conversation."""
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        item_id = await begin(connection)
        context = rig.engine.context
        system = {
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": "Judge."}],
        }
        stories: list[list[str]] = []
        respond = context.respond
        context.respond = lambda *given, **more: (  # type: ignore[method-assign]
            stories.append(context.story),
            respond(*given, **more),
        )[1]
        await connection.response.create(response={"input": [system]})
        events = await collect(connection)
        (added,) = of(events, "conversation.item.added")
        assert added["previous_item_id"] == item_id
        assert of(events, "response.done")[0]["response"]["conversation_id"] is not None
        heard = ["user: hello", "assistant: One two three four"]
        assert context.story == heard
        await connection.conversation.item.truncate(
            item_id=added["item"]["id"], content_index=0, audio_end_ms=320
        )
        await collect(connection, "conversation.item.truncated")
        await until(lambda: context.story == ["user: hello", "assistant: One two"])
        await connection.response.create(response={"input": []})
        await collect(connection)
        assert stories == [["system: Judge."], []]
        assert len(rig.engine.contexts) == 1
        assert context.story == ["user: hello", "assistant: One two", heard[1]]
