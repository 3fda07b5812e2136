"""The dialect of the hosted Qwen service, as it looks on the socket."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from daemon_rig import Rig, serving, silence, tone
from fake_engine import Script
from websockets.asyncio.client import ClientConnection, connect

from daemon.protocol import ProtocolError
from daemon.qwen_client import session_patch, translated


def dialect(rig: Rig) -> Any:
    return connect(rig.ws.replace("/v1/realtime", "/api-ws/v1/realtime"))


async def until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] == kind:
                return event


async def test_a_session_begins_as_the_services_does() -> None:
    async with serving() as rig, dialect(rig) as socket:
        session = (await until(socket, "session.created"))["session"]
        assert session["modalities"] == ["text", "audio"]
        assert session["audio"]["input"]["format"] == {"type": "pcm", "sample_rate": 16_000}
        assert session["audio"]["output"]["format"] == {"type": "pcm", "sample_rate": 24_000}
        assert session["turn_detection"]["silence_duration_ms"] == 800


async def test_a_typed_turn_has_the_services_names() -> None:
    async with serving() as rig, dialect(rig) as socket:
        part = {"type": "input_text", "text": "hi"}
        item = {"type": "message", "role": "user", "content": [part]}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        asked = {"modalities": ["text"], "instructions": None}
        await socket.send(json.dumps({"type": "response.create", "response": asked}))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != "response.done":
            seen.append(json.loads(await socket.recv()))
        kinds = [event["type"] for event in seen]
        assert kinds.count("conversation.item.created") == 2
        assert "response.text.delta" in kinds
        assert not [kind for kind in kinds if kind.startswith("x.") or "output_text" in kind]
        response = seen[-1]["response"]
        assert response["modalities"] == ["text"]
        assert response["output"][0]["content"] == [{"type": "text", "text": "One two three four"}]


async def test_a_wrong_event_costs_one_error() -> None:
    async with serving() as rig, dialect(rig) as socket:
        for message, param in (
            ("[", None),
            ('{"type": "session.update", "event_id": "e", "session": {"x": 1}}', "session.x"),
            ('{"type": "session.update", "session": {"enable_search": true}}', "enable_search"),
            ('{"type": "input_image_buffer.append", "image": ""}', "image"),
        ):
            await socket.send(message)
            error = (await until(socket, "error"))["error"]
            assert (param or "") in (error["param"] or "")
        await socket.send('{"type": "session.update", "session": {}}')
        await until(socket, "session.updated")


async def test_finishing_waits_for_the_reply() -> None:
    async with serving(Script(holds_at=2)) as rig, dialect(rig) as socket:
        sound = tone(0.5, 16_000) + silence(1.2, 16_000)
        audio = base64.b64encode(sound).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await until(socket, "response.audio.delta")
        await socket.send('{"type": "session.finish"}')
        await asyncio.sleep(0.05)
        rig.engine.response.go_on()
        await until(socket, "response.done")
        await until(socket, "session.finished")
        await asyncio.wait_for(socket.wait_closed(), 5)
        assert socket.close_code == 1000


async def test_sampling_reaches_the_engine_and_is_shown() -> None:
    async with serving() as rig, dialect(rig) as socket:

        async def update(**session: Any) -> dict[str, Any]:
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            view: dict[str, Any] = (await until(socket, "session.updated"))["session"]
            return view

        await update(temperature=0.5, seed=7, top_k=20, presence_penalty=None)
        view = await update(top_p=0.8)
        assert (view["temperature"], view["top_p"], view["seed"]) == (0.5, 0.8, 7)
        await socket.send('{"type": "response.create"}')
        await until(socket, "response.done")
        options = rig.engine.response.options
        assert (options.temperature, options.top_p, options.seed) == (0.5, 0.8, 7)
        await update(temperature=0)
        await socket.send('{"type": "response.create"}')
        await until(socket, "response.done")
        assert rig.engine.response.options.greedy


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"voice": "x"}, "invalid_value", "session.voice"),
        ({"temperature": "x"}, "invalid_value", "session.temperature"),
        ({"temperature": 3}, "decimal_above_max_value", "session.temperature"),
        ({"max_tokens": 0}, "integer_below_min_value", "session.max_tokens"),
        (
            {"audio": {"input": {"format": {"type": "pcm", "sample_rate": 1}}}},
            "integer_below_min_value",
            "session.audio.input.format.sample_rate",
        ),
        (
            {"input_audio_transcription": {"language": 1}},
            "invalid_value",
            "session.input_audio_transcription.language",
        ),
        ({"turn_detection": {"threshold": 2}}, "decimal_above_max_value", "session.turn_detection"),
        (
            {"tools": [{"type": "function", "function": {"description": "nameless"}}]},
            "missing_required_parameter",
            "session.tools[0].function.name",
        ),
        ({"top_k": "x"}, "invalid_value", "session.top_k"),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 100}},
            "integer_below_min_value",
            "session.turn_detection.silence_duration_ms",
        ),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 6001}},
            "integer_above_max_value",
            "session.turn_detection.silence_duration_ms",
        ),
    ],
)
async def test_values_out_of_the_services_range_are_refused(
    session: dict[str, Any], code: str, param: str
) -> None:
    async with serving() as rig, dialect(rig) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        error = (await until(socket, "error"))["error"]
        assert error["code"] == code
        assert error["param"].startswith(param)
        assert "audio." not in error["message"].replace(error["param"], "")
        assert "voice" not in session or error["message"].startswith("Voice 'x' is not supported.")


def test_values_move_to_where_the_protocol_has_them() -> None:
    function = {"name": "f", "parameters": {}}
    patch = session_patch(
        {
            "modalities": ["audio", "text"],
            "voice": None,
            "input_audio_format": "pcm16",
            "audio": {"output": {"format": {"type": "pcm", "sample_rate": 48_000}}},
            "turn_detection": {"type": "server_vad", "threshold": -0.5},
            "input_audio_transcription": {"model": None, "language": "en"},
            "tools": [{"type": "function", "function": function}],
            "max_tokens": 7,
            "temperature": 0.5,
            "enable_search": False,
        }
    )
    assert patch == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "max_output_tokens": 7,
        "x_sampling": {"temperature": 0.5},
        "tools": [{"type": "function", **function}],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 16_000},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0,
                    "silence_duration_ms": 800,
                },
                "transcription": {"language": "en"},
            },
            "output": {"format": {"type": "audio/pcm", "rate": 48_000}},
        },
    }


@pytest.mark.parametrize(
    "session",
    [
        {"modalities": ["audio"]},
        {"input_audio_format": "mp3"},
        {"audio": {"input": {"format": {"type": "wav"}}}},
        {"translation": {"language": "en"}},
    ],
)
def test_what_is_not_served_is_refused(session: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        translated({"type": "session.update", "session": session})
