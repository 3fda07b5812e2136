"""The user's speech as text, from the model itself, beside the conversation."""

from __future__ import annotations

from typing import Any

import pytest
from daemon_rig import serving, until
from fake_engine import Script
from test_sdk_conversation import client, collect, of, say

KIND = "conversation.item.input_audio_transcription"


async def begin(connection: Any, **transcription: Any) -> dict[str, Any]:
    await collect(connection, "session.created")
    await connection.session.update(
        session={"type": "realtime", "audio": {"input": {"transcription": transcription}}}
    )
    (updated,) = await collect(connection, "session.updated")
    found: dict[str, Any] = updated["session"]["audio"]["input"]["transcription"]
    return found


async def test_all_that_helps_is_told_to_the_model() -> None:
    helps = {"languages": ["en", "de"], "keywords": ["omnid", "VAD"], "prompt": "Be exact."}
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        assert await begin(connection, model="whisper-1", **helps) == {
            "model": "whisper-1",
            **helps,
        }
        await say(connection)
        await gather(connection)
        assert (
            rig.engine.contexts[-1]
            .story[0]
            .endswith(
                "Transcribe the en or de audio into text. These may occur: omnid, VAD. Be exact."
            )
        )


async def test_a_delay_is_shown_as_it_was_asked() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await collect(connection, "session.created")
        for delay in ("minimal", "low", "medium", "high", "xhigh", None):
            asked: Any = {"model": "gpt-realtime-whisper", "delay": delay}
            audio: Any = {"input": {"transcription": asked}}
            await connection.session.update(session={"type": "realtime", "audio": audio})
            (updated,) = await collect(connection, "session.updated")
            shown = updated["session"]["audio"]["input"]["transcription"]
            assert shown == {key: value for key, value in asked.items() if value is not None}


async def peek(connection: Any, events: list[dict[str, Any]]) -> dict[str, Any]:
    event = connection.parse_event(await connection.recv_bytes()).to_dict()
    events.append(event)
    return event


async def gather(connection: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    ends = {"rate_limits.updated": 0, KIND: 0}
    while not all(ends.values()):
        event = await peek(connection, events)
        if event["type"] == "rate_limits.updated":
            ends["rate_limits.updated"] += 1
        elif event["type"] in (f"{KIND}.completed", f"{KIND}.failed"):
            ends[KIND] += 1
    return events


async def test_a_turn_is_transcribed_beside_its_reply() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        shown = await begin(connection, model="whisper-1", language="English")
        assert shown == {"model": "whisper-1", "language": "English"}
        await say(connection)
        events = await gather(connection)
        (item_id,) = {event["item_id"] for event in events if event["type"].startswith(KIND)}
        assert item_id == of(events, "input_audio_buffer.committed")[0]["item_id"]
        (completed,) = of(events, f"{KIND}.completed")
        deltas = "".join(event["delta"] for event in of(events, f"{KIND}.delta"))
        assert deltas == completed["transcript"] == "One two three four"
        assert completed["usage"]["total_tokens"] == 11
        aside = rig.engine.contexts[-1]
        assert aside.story[0].endswith("Transcribe the English audio into text.")
        assert not rig.engine.responses[-1].options.audio
        await until(lambda: aside.is_closed)
        await connection.conversation.item.retrieve(item_id=item_id)
        (retrieved,) = await collect(connection, "conversation.item.retrieved")
        assert retrieved["item"]["content"][0]["transcript"] == deltas
        assert len(rig.engine.contexts[0].entries) == 2


async def test_a_failed_transcript_is_told_and_the_session_lives() -> None:
    script = Script(status="failed", error="no room")
    async with serving(script) as rig, client(rig).realtime.connect(model="m") as connection:
        await begin(connection, model="x")
        await say(connection)
        (failed,) = of(await gather(connection), f"{KIND}.failed")
        assert failed["error"]["message"] == "no room"
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"transcription": None}}}
        )
        (updated,) = await collect(connection, "session.updated")
        assert updated["session"]["audio"]["input"]["transcription"] is None


@pytest.mark.parametrize("eagerness", ["low", "auto", "medium", "high"])
async def test_semantic_detection_is_shown_as_it_was_asked(eagerness: str) -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await collect(connection, "session.created")
        detection = {"type": "semantic_vad", "eagerness": eagerness}
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}  # type: ignore
        )
        (updated,) = await collect(connection, "session.updated")
        assert updated["session"]["audio"]["input"]["turn_detection"] == {
            **detection,
            "create_response": True,
            "interrupt_response": True,
        }
        (live,) = rig.app.state.sessions._live.values()
        in_effect = live.session.conversation.config.turn_detection
        assert in_effect.eagerness == eagerness


async def test_detection_without_a_type_keeps_the_type() -> None:
    async with serving() as rig, client(rig).realtime.connect(model="m") as connection:
        await collect(connection, "session.created")
        for detection, kind, interrupts in (
            ({"type": "semantic_vad", "eagerness": "low"}, "semantic_vad", True),
            ({"interrupt_response": False}, "semantic_vad", False),
            ({"silence_duration_ms": 300}, "server_vad", True),
        ):
            audio: Any = {"input": {"turn_detection": detection}}
            await connection.session.update(session={"type": "realtime", "audio": audio})
            (updated,) = await collect(connection, "session.updated")
            shown = updated["session"]["audio"]["input"]["turn_detection"]
            assert (shown["type"], shown["interrupt_response"]) == (kind, interrupts)
            assert kind == "server_vad" or shown["eagerness"] == "low"
