"""The unchanged `openai` SDK converses over WebSocket; every event fits the SDK's types."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

from daemon_rig import Rig, serving, silence, tone
from fake_engine import Script
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

REPLY_S = 8 * 0.08
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "<deltas>",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
    "rate_limits.updated",
]


def client(rig: Rig) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="sk-dummy", base_url=f"{rig.http}/v1", max_retries=0)


async def collect(connection: Any, last: str = "rate_limits.updated") -> list[dict[str, Any]]:
    """Events up to one of type `last`, each held against the SDK's types, strictly."""
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] != last:
        raw = await connection.recv_bytes()
        SERVER_EVENT.validate_json(raw, strict=True)
        seen.append(connection.parse_event(raw).to_dict())
    return seen


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Types in order; a run of deltas counts as one."""
    out: list[str] = []
    for event in events:
        kind = "<deltas>" if event["type"].endswith(".delta") else event["type"]
        if kind != "<deltas>" or out[-1:] != [kind]:
            out.append(kind)
    return out


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def say(connection: Any) -> None:
    """Half a second of speech and the silence that ends a turn, in pieces with odd lengths."""
    audio = silence(0.4) + tone(0.5) + silence(0.8)
    for start in range(0, len(audio), 4_801):
        piece = base64.b64encode(audio[start : start + 4_801]).decode()
        await connection.input_audio_buffer.append(audio=piece)


async def test_two_spoken_turns() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="qwen3-omni") as connection:
        (created,) = await collect(connection, "session.created")
        session = created["session"]
        assert session["model"] == "qwen3-omni", "what was asked for, whatever is served"
        assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
        assert "x_ext" not in session
        previous = None
        for _ in range(2):
            await say(connection)
            events = await collect(connection)
            assert kinds(events) == TURN
            previous = check_turn(events, previous)
            await asyncio.sleep(REPLY_S)  # a listener hears it to its end
        user, reply = r"user: <(?:0\.9|1\.0)\d* s>", "assistant: One two three four"
        assert re.fullmatch(
            ", ".join([user, reply, user, reply]), ", ".join(rig.engine.context.story)
        )


def check_turn(events: list[dict[str, Any]], previous: str | None) -> str:
    """What must hold within a turn; returns the id of its last item."""
    started, stopped = events[0], events[1]
    assert 0 <= started["audio_start_ms"] < stopped["audio_end_ms"]
    user, reply = of(events, "conversation.item.added")
    assert user["previous_item_id"] == previous
    assert [part["type"] for part in user["item"]["content"]] == ["input_audio"]
    assert started["item_id"] == stopped["item_id"] == user["item"]["id"]
    assert reply["previous_item_id"] == user["item"]["id"]
    assert reply["item"]["content"] == []
    pcm = b"".join(base64.b64decode(e["delta"]) for e in of(events, "response.output_audio.delta"))
    assert len(pcm) == 2 * 8 * 1920
    text = "".join(e["delta"] for e in of(events, "response.output_audio_transcript.delta"))
    (transcript,) = of(events, "response.output_audio_transcript.done")
    (done,) = of(events, "response.done")
    assert transcript["transcript"] == text == "One two three four"
    response = done["response"]
    assert response["status"] == "completed"
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": text}]
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    return str(reply["item"]["id"])


async def test_typed_turn_with_text_answer_and_metadata() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await collect(connection, "session.created")
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            }
        )
        await connection.response.create(
            response={"output_modalities": ["text"], "metadata": {"client_event_id": "x1"}}
        )
        events = await collect(connection)
        assert kinds(events) == [
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "<deltas>",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
            "rate_limits.updated",
        ]
        created, done = of(events, "response.created")[0], of(events, "response.done")[0]
        assert created["response"]["metadata"] == {"client_event_id": "x1"}
        assert done["response"]["metadata"] == {"client_event_id": "x1"}
        assert done["response"]["output"][0]["content"] == [
            {"type": "output_text", "text": "One two three four"}
        ]


async def test_push_to_talk_and_cancel() -> None:
    script = Script(holds_at=3)
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await collect(connection, "session.created")
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        (updated,) = await collect(connection, "session.updated")
        assert updated["session"]["audio"]["input"]["turn_detection"] is None
        await connection.input_audio_buffer.append(audio=base64.b64encode(tone(0.5)).decode())
        await connection.input_audio_buffer.commit()
        assert kinds(await collect(connection, "conversation.item.done")) == TURN[2:5]
        await connection.response.create()
        events = await collect(connection, "response.output_audio.delta")
        await connection.response.cancel()
        events += await collect(connection)
        assert kinds(events)[-8:] == TURN[9:]
        (done,) = of(events, "response.done")
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        assert done["response"]["output"][0]["status"] == "incomplete"


async def test_user_speaks_over_the_reply() -> None:
    script = Script(holds_at=2)
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await collect(connection, "session.created")
        await say(connection)
        events = await collect(connection, "response.output_audio.delta")
        await connection.input_audio_buffer.append(audio=base64.b64encode(tone(0.6)).decode())
        events = await collect(connection)
        (done,) = of(events, "response.done")
        assert "input_audio_buffer.speech_started" in kinds(events)
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        item_id = done["response"]["output"][0]["id"]
        await connection.conversation.item.truncate(
            item_id=item_id, content_index=0, audio_end_ms=80
        )
        (truncated,) = await collect(connection, "conversation.item.truncated")
        assert (truncated["item_id"], truncated["audio_end_ms"]) == (item_id, 80)
