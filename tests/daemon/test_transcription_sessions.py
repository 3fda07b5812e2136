"""Sessions that only write down what is said (section 16)."""

from __future__ import annotations

import base64
import json
from typing import Any

import websockets
from daemon_rig import Rig, serving, silence, tone
from rtc_client import calling
from test_bad_input import event, next_event

KIND = "conversation.item.input_audio_transcription"
SESSION = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}


def address(rig: Rig, query: str = "intent=transcription") -> str:
    return f"ws://127.0.0.1:{rig.port}/v1/realtime?{query}"


async def until(socket: Any, kind: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] != kind:
        seen.append(await next_event(socket))
    return seen


async def test_spoken_turns_become_text_and_nobody_replies() -> None:
    async with serving() as rig, websockets.connect(address(rig)) as socket:
        created = (await next_event(socket))["session"]
        assert (created["type"], created["object"]) == (
            "transcription",
            "realtime.transcription_session",
        )
        assert set(created) == {"type", "object", "id", "expires_at", "audio", "include"}
        await socket.send(event("session.update", session=SESSION))
        updated = await next_event(socket)
        assert updated["session"]["audio"]["input"]["transcription"] == {"model": "whisper-1"}
        turn = base64.b64encode(silence(0.4) + tone(0.5) + silence(0.9)).decode()
        items = []
        for _ in range(2):
            await socket.send(event("input_audio_buffer.append", audio=turn))
            seen = await until(socket, f"{KIND}.completed")
            assert [each["type"] for each in seen if not each["type"].endswith(".delta")] == [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                f"{KIND}.completed",
            ]
            assert seen[-1]["transcript"] == "One two three four"
            items.append(seen[-1]["item_id"])
        assert len(set(items)) == 2
        assert all(context.story[0].endswith("into text.") for context in rig.engine.contexts), (
            "the engine is asked for transcripts, and holds no conversation"
        )


async def test_by_hand_and_what_does_not_belong_is_refused() -> None:
    async with serving() as rig, websockets.connect(address(rig)) as socket:
        await next_event(socket)
        for session, code, param in (
            ({"type": "realtime"}, "invalid_value", "session.type"),
            ({"type": "transcription", "instructions": "x"}, "unknown_parameter", "instructions"),
            (
                {"type": "transcription", "audio": {"output": {"voice": "ash"}}},
                "unknown_parameter",
                "audio.output",
            ),
        ):
            await socket.send(event("session.update", session=session))
            error = (await next_event(socket))["error"]
            assert error["code"] == code
            assert error["param"].endswith(param)
        await socket.send(event("response.create"))
        assert (await next_event(socket))["error"]["code"] == "invalid_value"
        manual = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        await socket.send(event("session.update", session=manual))
        await next_event(socket)
        sound = base64.b64encode(tone(0.5)).decode()
        await socket.send(event("input_audio_buffer.append", audio=sound))
        await socket.send(event("input_audio_buffer.commit"))
        seen = await until(socket, f"{KIND}.completed")
        assert seen[0]["type"] == "input_audio_buffer.committed"


async def test_a_realtime_session_stays_one() -> None:
    async with serving() as rig, websockets.connect(address(rig, "model=m")) as socket:
        await next_event(socket)
        await socket.send(event("session.update", session=SESSION))
        assert (await next_event(socket))["error"]["param"] == "session.type"


async def test_by_ephemeral_key_and_over_webrtc() -> None:
    async with serving() as rig:
        asked = json.dumps({"session": SESSION})
        answer = await rig.fetch(
            "POST", "/v1/realtime/client_secrets", asked, type="application/json"
        )
        assert answer.status == 200, answer.text
        secret = json.loads(answer.text)
        assert secret["session"]["type"] == "transcription"
        headers = {"Authorization": f"Bearer {secret['value']}"}
        async with websockets.connect(
            address(rig, "model=m"), additional_headers=headers
        ) as socket:
            assert (await next_event(socket))["session"]["type"] == "transcription"
        async with calling(rig, authorization=headers["Authorization"]) as client:
            assert client.events[0]["session"]["type"] == "transcription"
            client.microphone.say(tone(0.6, 48_000) + silence(0.9, 48_000))
            done = await client.wait_for(f"{KIND}.completed")
            assert done["transcript"] == "One two three four"
            assert "response.created" not in client.kinds()
