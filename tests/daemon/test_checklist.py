"""The conformance checklist of the protocol, rows 1 to 14: what is said over one WebSocket.

Each test is one row; what else there is about a row is tested where its code is.
"""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from daemon_rig import serving, silence, tone, until
from fake_engine import Script
from wire_client import TURN, audio_bytes, wire

from daemon.protocol import CLIENT_EVENTS
from pipeline.messages import Usage

FRAME_MS = 80
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
CALLS = Script(
    words=(), num_frames=0, calls=(("weather", '{"city": "Rome"}'), ("weather", '{"city": "Oslo"}'))
)


async def test_row_01_the_first_frame_is_the_whole_session() -> None:
    async with serving() as rig, wire(rig) as client:
        (created,) = client.events
        assert created["type"] == "session.created"
        session = created["session"]
        assert set(session) == {
            "type", "object", "id", "model", "output_modalities", "instructions", "tools",
            "tool_choice", "max_output_tokens", "tracing", "truncation", "prompt", "expires_at",
            "audio", "include",
        }  # fmt: skip
        assert set(session["audio"]["input"]) == {
            "format", "transcription", "noise_reduction", "turn_detection",
        }  # fmt: skip
        assert set(session["audio"]["output"]) == {"format", "voice", "speed"}
        for direction in ("input", "output"):
            assert session["audio"][direction]["format"] == {"type": "audio/pcm", "rate": 24_000}
        detection = session["audio"]["input"]["turn_detection"]
        for name in ("prefix_padding_ms", "silence_duration_ms"):
            assert type(detection[name]) is int, name
        assert type(session["expires_at"]) is int


async def test_row_02_what_is_sent_again_is_taken_and_what_is_wrong_changes_nothing() -> None:
    async with serving() as rig, wire(rig) as client:
        session = client.events[0]["session"]
        assert await client.update(**session) == session, "all of it, read-only fields included"
        await client.update(tracing="auto")
        await client.reply()
        assert await client.update(audio={"output": {"voice": session["audio"]["output"]["voice"]}})
        for wrong, code, param in (
            ({"audio": {"output": {"voice": "Ethan"}}}, "cannot_update_voice", "output.voice"),
            ({"instructions": "new", "speed": 1}, "unknown_parameter", "session.speed"),
            ({"instructions": "new", "max_output_tokens": 0}, "integer_below_min_value", "tokens"),
            ({"instructions": "new", "truncation": "none"}, "invalid_value", "truncation"),
            ({"instructions": "new", "tracing": {"group_id": "x"}}, "invalid_value", "tracing"),
        ):
            await client.send(
                "session.update", event_id="mine", session={"type": "realtime", **wrong}
            )
            error = await client.error()
            assert (error["code"], error["event_id"]) == (code, "mine")
            assert error["param"].endswith(param)
        assert (await client.update())["instructions"] == session["instructions"]


async def test_row_03_every_client_event_is_obeyed() -> None:
    """The eleven, each by what it does; those that nothing answers by what comes of them."""
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    seen: set[str] = set()
    async with serving(Script(holds_at=2)) as rig, wire(rig) as client:

        async def obeyed(kind: str, answer: str, **fields: Any) -> dict[str, Any]:
            seen.add(kind)
            await client.send(kind, event_id="mine", **fields)
            return (await client.until(answer))[-1]

        session = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        await obeyed("session.update", "session.updated", session=session)
        seen.add("input_audio_buffer.append")
        await client.append(tone(0.5))
        await obeyed("input_audio_buffer.clear", "input_audio_buffer.cleared")
        await client.append(tone(0.3))
        await obeyed("input_audio_buffer.commit", "input_audio_buffer.committed")
        spoken = (await client.until("conversation.item.done"))[-1]["item"]
        await obeyed("conversation.item.create", "conversation.item.done", item=message)
        shown = await obeyed(
            "conversation.item.retrieve", "conversation.item.retrieved", item_id=spoken["id"]
        )
        heard_s = len(base64.b64decode(shown["item"]["content"][0]["audio"])) / 48_000
        assert heard_s == pytest.approx(0.3, abs=0.01), "what was cleared is not in it"
        await obeyed("conversation.item.delete", "conversation.item.deleted", item_id=spoken["id"])
        await obeyed("response.create", "response.output_audio.delta", response={"metadata": None})
        done = (await obeyed("response.cancel", "response.done"))["response"]
        assert done["status"] == "cancelled"
        told = await obeyed(
            "conversation.item.truncate",
            "conversation.item.truncated",
            item_id=done["output"][0]["id"],
            content_index=0,
            audio_end_ms=80,
        )
        assert told["audio_end_ms"] == 80
        await until(lambda: rig.engine.context.story[:1] == ["user: hi"])
        seen.add("output_audio_buffer.clear")
        await client.send("output_audio_buffer.clear")  # nothing is played here: nothing to tell
        await client.check_open()
        assert not client.of("error")
    assert seen == set(CLIENT_EVENTS) - {"input_image_buffer.append"}
    assert len(seen) == 11


async def test_row_03_nonsense_is_named_and_leaves_the_session_open() -> None:
    async with serving() as rig, wire(rig) as client:
        for kind in CLIENT_EVENTS:
            await client.send(kind, event_id="mine", surprise=1)
            error = await client.error()
            assert error["param"] != "type", kind
            assert error["event_id"] == "mine"
        await client.send("response.dance")
        error = await client.error()
        assert (error["code"], error["param"]) == ("invalid_value", "type")
        for text in ("{", "[1]", "null", ""):
            await client.socket.send(text)
            assert (await client.error())["code"] == "invalid_json"
        await client.socket.send("{}")
        assert (await client.error())["code"] == "invalid_event"
        await client.check_open()


@pytest.mark.parametrize("output", ["audio", "text"])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_row_04_whatever_begins_ends_once(output: str, is_cancelled: bool) -> None:
    script = Script(holds_at=3 if is_cancelled else None, calls=(("weather", "{}"),))
    async with serving(script) as rig, wire(rig) as client:
        await client.update(tools=[FUNCTION], output_modalities=[output])
        await client.send("response.create")
        if is_cancelled:
            await client.until("response.content_part.added")
            await until(lambda: rig.engine.response.said)
            await client.send("response.cancel")
        await client.until("rate_limits.updated")
        counts = Counter(client.kinds())
        assert counts["response.created"] == counts["response.done"] == 1
        kinds = ("conversation.item", "response.output_item", "response.content_part")
        for kind in kinds:
            assert counts[f"{kind}.added"] == counts[f"{kind}.done"] > 0, kind
        assert counts["response.output_item.added"] == (1 if is_cancelled else 2)
        (done,) = client.of("response.done")
        status = "cancelled" if is_cancelled else "completed"
        assert done["response"]["status"] == status
        added = client.kinds().index("response.output_item.added")
        assert client.kinds().index("response.created") < added
        assert client.kinds()[-1] == "rate_limits.updated"
        assert client.kinds()[-2] == "response.done"


async def test_row_05_deltas_add_up() -> None:
    async with serving() as rig, wire(rig) as client:
        await client.reply()
        transcript = "".join(
            e["delta"] for e in client.of("response.output_audio_transcript.delta")
        )
        (told,) = client.of("response.output_audio_transcript.done")
        (done,) = client.of("response.done")
        (item,) = done["response"]["output"]
        assert transcript == told["transcript"] == item["content"][0]["transcript"]
        num_bytes = audio_bytes(client.events, item["id"])
        await client.send("conversation.item.retrieve", item_id=item["id"])
        (retrieved,) = await client.until("conversation.item.retrieved")
        sound = base64.b64decode(retrieved["item"]["content"][0]["audio"])
        assert len(sound) == num_bytes == 8 * FRAME_MS * 48
        await client.reply(output_modalities=["text"])
        text = "".join(e["delta"] for e in client.of("response.output_text.delta"))
        assert text == client.of("response.output_text.done")[0]["text"] == transcript
        for each in client.of("response.done"):
            usage = each["response"]["usage"]
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_row_05_usage_adds_up_by_kind() -> None:
    usage = Usage(
        input_text_tokens=10,
        input_audio_tokens=20,
        input_image_tokens=30,
        cached_tokens=45,
        cached_audio_tokens=14,
        cached_image_tokens=25,
        output_text_tokens=3,
        output_audio_tokens=4,
    )
    async with serving(Script(usage=usage)) as rig, wire(rig) as client:
        told = (await client.reply())[-2]["response"]["usage"]
        assert told == {
            "total_tokens": 67,
            "input_tokens": 60,
            "output_tokens": 7,
            "input_token_details": {
                "text_tokens": 10,
                "audio_tokens": 20,
                "image_tokens": 30,
                "cached_tokens": 45,
                "cached_tokens_details": {
                    "text_tokens": 6,
                    "audio_tokens": 14,
                    "image_tokens": 25,
                },
            },
            "output_token_details": {"text_tokens": 3, "audio_tokens": 4},
        }


async def test_row_06_speech_is_on_the_input_clock_however_fast_it_comes() -> None:
    """Four turns of 1.8 s at once: each edge is where it would be in real time."""
    async with serving() as rig, wire(rig) as client:
        await client.append(4 * TURN)
        while client.kinds().count("input_audio_buffer.speech_stopped") < 4:
            await client.next()
        started = client.of("input_audio_buffer.speech_started")
        stopped = client.of("input_audio_buffer.speech_stopped")
        assert [e["item_id"] for e in started] == [e["item_id"] for e in stopped]
        assert len({e["item_id"] for e in started}) == 4
        for turn, (start, stop) in enumerate(zip(started, stopped, strict=True)):
            assert abs(start["audio_start_ms"] - (1_800 * turn + 100)) < 120
            assert start["audio_start_ms"] + 500 < stop["audio_end_ms"] <= 1_800 * (turn + 1)


async def test_row_07_following_the_links_gives_the_conversation() -> None:
    async with serving() as rig, wire(rig) as client:
        first = await client.type("first")
        await client.reply()
        await client.append(TURN)
        await client.until("rate_limits.updated")
        await client.type("zeroth", previous_item_id="root")
        await client.type("second", previous_item_id=first)
        await client.reply()
        order: list[str] = []
        for event in client.of("conversation.item.added"):
            before = event["previous_item_id"]
            order.insert(0 if before is None else order.index(before) + 1, event["item"]["id"])
        (live,) = rig.app.state.sessions._live.values()
        assert order == [item.id for item in live.session.conversation._log.history]
        assert len(order) == 7
        assert rig.engine.context.story[:3] == ["user: zeroth", "user: first", "user: second"]


async def test_row_08_truncation() -> None:
    """Undershoot, overshoot, zero, twice, unknown, a user's item, and while it is made."""
    async with serving() as rig, wire(rig) as client:
        user_id = await client.type("hi")

        async def spoken() -> str:
            done = (await client.reply())[-2]["response"]
            return str(done["output"][0]["id"])

        async def truncate(item_id: str, ms: int) -> dict[str, Any]:
            await client.send(
                "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=ms
            )
            return await client.next()

        item_id = await spoken()
        for ms in (320, 160, 0):
            told = await truncate(item_id, ms)
            assert told["type"] == "conversation.item.truncated"
            assert (told["item_id"], told["audio_end_ms"]) == (item_id, ms)
        item_id = await spoken()
        answer = await truncate(item_id, 9_999)
        assert answer["error"]["message"].startswith("Audio content of 640ms is already shorter")
        assert rig.engine.context.story[-1] == "assistant: One two three four", "all was heard"
        answer = await truncate("nothing", 10)
        assert answer["error"]["code"] == "item_truncate_invalid_item_id"
        assert (await truncate(user_id, 10))["error"]["code"] == "unsupported_content_type"
        rig.engine.script = Script(holds_at=4)
        await client.send("response.create")
        added = (await client.until("response.output_audio.delta"))[-1]
        await until(lambda: rig.engine.response.num_frames == 4)
        await client.send(
            "conversation.item.truncate",
            item_id=added["item_id"],
            content_index=0,
            audio_end_ms=FRAME_MS,
        )
        seen = await client.until("conversation.item.truncated")
        assert "response.done" in [each["type"] for each in seen]
        await client.check_open()


async def test_row_09_cancelling() -> None:
    """Nothing active, by another id, by its id, twice; afterwards nothing of it comes."""
    async with serving(Script(holds_at=2)) as rig, wire(rig) as client:
        await client.send("response.cancel", event_id="none")
        error = await client.error()
        assert error["code"] == "response_cancel_not_active"
        assert error["message"].startswith("Cancellation failed")
        await client.send("response.create")
        created = (await client.until("response.output_audio.delta"))[0]["response"]["id"]
        await client.send("response.cancel", response_id="resp_other")
        assert (await client.error())["code"] == "response_cancel_not_active"
        await client.send("response.cancel", response_id=created)
        done = (await client.until("response.done"))[-1]["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        await client.send("response.cancel")
        assert (await client.error())["code"] == "response_cancel_not_active"
        await client.send("response.create", response={"conversation": "none"})
        aside = (await client.until("response.output_audio.delta"))[-1]["response_id"]
        await client.send("response.cancel", response_id=aside)
        done = (await client.until("response.done"))[-1]["response"]
        assert (done["id"], done["status"]) == (aside, "cancelled")
        await client.check_open()
        for response_id in (created, aside):
            mine = [e["type"] for e in client.events if _response_id(e) == response_id]
            assert mine[-1] == "response.done"


def _response_id(event: dict[str, Any]) -> str | None:
    found: str | None = event.get("response_id") or event.get("response", {}).get("id")
    return found


async def test_row_10_out_of_band() -> None:
    """Beside a spoken reply, without items, without a conversation, from an empty input."""
    async with serving(Script(holds_at=2)) as rig, wire(rig) as client:
        await client.type("hi")
        await client.send("response.create")
        main_id = (await client.until("response.output_audio.delta"))[0]["response"]["id"]
        rig.engine.script = Script(words=("Aside",), num_frames=0)
        metadata = {"client_event_id": "x"}
        await client.send(
            "response.create",
            response={"conversation": "none", "input": [], "metadata": metadata},
        )
        seen = await client.until("response.done")
        assert not [e for e in seen if e["type"].startswith("conversation.item")]
        done = seen[-1]["response"]
        assert (done["conversation_id"], done["metadata"]) == (None, metadata)
        assert rig.engine.contexts[-1].story == ["assistant: Aside"]
        rig.engine.responses[0].go_on()
        done = (await client.until("response.done"))[-1]["response"]
        assert (done["id"], done["status"]) == (main_id, "completed")
        assert rig.engine.contexts[0].story == ["user: hi", "assistant: One two three four"]


async def test_row_11_tools() -> None:
    """Two calls at once, an answer to none, speech over a call that waits, then the answers."""
    async with serving(CALLS) as rig, wire(rig) as client:
        await client.update(tools=[FUNCTION])
        await client.type("weather?")
        done = (await client.reply())[-2]["response"]
        calls = {item["call_id"]: item["arguments"] for item in done["output"]}
        assert list(calls.values()) == ['{"city": "Rome"}', '{"city": "Oslo"}']
        for call_id, arguments in calls.items():
            deltas = [
                e["delta"]
                for e in client.of("response.function_call_arguments.delta")
                if e["call_id"] == call_id
            ]
            assert "".join(deltas) == arguments
        assert {e["name"] for e in client.of("response.function_call_arguments.done")} == {
            "weather"
        }

        async def answer(call_id: str) -> None:
            item = {"type": "function_call_output", "call_id": call_id, "output": "sunny"}
            await client.send("conversation.item.create", item=item)

        await answer("call_unknown")
        assert (await client.error())["code"] == "invalid_tool_call_id"
        rig.engine.script = Script()
        await client.append(TURN)
        await client.until("rate_limits.updated")
        for call_id in calls:
            await answer(call_id)
            await client.until("conversation.item.done")
        done = (await client.reply())[-2]["response"]
        assert done["status"] == "completed"


async def test_row_12_turns_by_hand() -> None:
    async with serving() as rig, wire(rig) as client:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.append(tone(0.05))
        await client.send("input_audio_buffer.commit")
        error = await client.error()
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert "buffer only has 50.00ms of audio" in error["message"]
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.append(tone(0.5))
        await client.send("input_audio_buffer.commit")
        seen = await client.until("conversation.item.done")
        assert [e["type"] for e in seen] == [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
        ]
        await client.check_open()
        assert "response.created" not in client.kinds(), "nobody asked yet"
        await client.reply()
        assert len(rig.engine.context.entries) == 2
        assert "input_audio_buffer.speech_started" not in client.kinds()


@pytest.mark.parametrize(
    ("creates", "interrupts", "statuses"),
    [
        (True, True, ["cancelled", "completed"]),
        (True, False, ["completed", "completed"]),
        (False, True, ["cancelled"]),
        (False, False, ["completed"]),
    ],
)
async def test_row_13_who_answers_and_who_interrupts(
    creates: bool, interrupts: bool, statuses: list[str]
) -> None:
    async with serving(Script(holds_at=2)) as rig, wire(rig) as client:
        detection = {
            "type": "server_vad",
            "create_response": creates,
            "interrupt_response": interrupts,
        }
        await client.update(audio={"input": {"turn_detection": detection}})
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.append(TURN)
        await client.until("input_audio_buffer.committed")
        rig.engine.script = Script()
        rig.engine.responses[0].go_on()
        if creates:
            await until(lambda: len(rig.engine.responses) == 2)
            rig.engine.responses[1].go_on()
        while len(client.of("response.done")) < len(statuses):
            await client.next()
        await client.check_open()
        assert [e["response"]["status"] for e in client.of("response.done")] == statuses
        assert "error" not in client.kinds(), "a reply that has to wait is no error"


async def test_row_14_the_idle_timeout_fires_once_and_arms_again() -> None:
    """The clock is real here, so the timeout is short; that it waits for the ear is tested with a
    clock of its own in `tests/pipeline/test_idle`.
    """
    async with serving(Script(num_frames=4)) as rig, wire(rig) as client:
        detection = {"type": "server_vad", "idle_timeout_ms": 5_000}
        view = await client.update(audio={"input": {"turn_detection": detection}})
        assert view["audio"]["input"]["turn_detection"]["idle_timeout_ms"] == 5_000
        (live,) = rig.app.state.sessions._live.values()
        conversation = live.session.conversation
        hasty = replace(conversation.config.turn_detection, idle_timeout_ms=150)
        conversation.configure(replace(conversation.config, turn_detection=hasty))
        await client.append(silence(0.5))
        await client.reply()
        for _ in range(2):
            seen = await client.until("rate_limits.updated")
            kinds = [each["type"] for each in seen]
            assert kinds[:2] == [
                "input_audio_buffer.timeout_triggered",
                "input_audio_buffer.committed",
            ]
            assert kinds.count("input_audio_buffer.timeout_triggered") == 1
            assert seen[0]["audio_start_ms"] <= seen[0]["audio_end_ms"]
