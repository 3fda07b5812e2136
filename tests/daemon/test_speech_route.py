"""`/v1/audio/speech` by the openai SDK, unchanged, and by bare requests."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import av
import numpy as np
import openai
import pytest
from daemon_rig import READY, Rig, serving
from fake_engine import Script, line_of
from openai import AsyncOpenAI

NUM_SAMPLES = 8 * 1920
TEXT = "The sky is blue."


def sdk(rig: Rig) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="any", base_url=f"{rig.http}/v1", max_retries=0)


async def speak(rig: Rig, **options: Any) -> bytes:
    """The sound of one request."""
    wanted: Any = {"model": "m", "voice": "alloy", "input": TEXT, **options}
    async with (
        sdk(rig) as client,
        client.audio.speech.with_streaming_response.create(**wanted) as answer,
    ):
        return b"".join([chunk async for chunk in answer.iter_bytes()])


def seconds_of(data: bytes) -> float:
    with av.open(io.BytesIO(data)) as container:
        return float(sum(f.samples / f.sample_rate for f in container.decode(audio=0)))


async def test_the_engine_is_given_the_text_to_say() -> None:
    async with serving() as rig:
        data = await speak(rig, response_format="pcm", instructions="Whisper.", voice="chelsie")
        samples = np.frombuffer(data, "<i2")
        assert (len(samples), samples[0], samples[-1]) == (NUM_SAMPLES, 1, 8)
        options = rig.engine.response.options
        assert (options.script, options.audio) == (TEXT, True)
        assert rig.engine.context.voice == "Chelsie"
        asked = line_of(rig.engine.context.entries[0])
        assert asked == (f"user: Whisper.\nRead the following text aloud, word for word:\n{TEXT}")
        assert rig.engine.context.is_closed


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav"])
async def test_every_format_plays_for_as_long_as_was_spoken(form: str) -> None:
    async with serving() as rig:
        data = await speak(rig, response_format=form)
        assert seconds_of(data) == pytest.approx(NUM_SAMPLES / 24_000, abs=0.12)


async def test_the_sound_comes_while_it_is_made() -> None:
    async with serving(Script(holds_at=4)) as rig, sdk(rig) as client:
        create = client.audio.speech.with_streaming_response.create
        async with create(model="m", voice="alloy", input=TEXT, response_format="pcm") as answer:
            chunks = answer.iter_bytes(2 * 1920)
            first = [await anext(chunks) for _ in range(4)]
            assert not rig.engine.response.is_ended
            rig.engine.response.go_on()
            rest = [chunk async for chunk in chunks]
        assert len(b"".join(first + rest)) == 2 * NUM_SAMPLES


async def test_events_instead_of_bytes() -> None:
    async with serving() as rig:
        body = {"input": TEXT, "response_format": "pcm", "stream_format": "sse"}
        answer = await rig.fetch("POST", "/v1/audio/speech", json.dumps(body))
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
        assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
        data = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
        assert len(data) == 2 * NUM_SAMPLES
        assert events[-1]["type"] == "speech.audio.done"
        assert events[-1]["usage"]["input_tokens"] == 7


async def test_the_speed_of_a_request() -> None:
    async with serving() as rig:
        data = await speak(rig, response_format="pcm", speed=2.0)
        assert len(data) == NUM_SAMPLES, "of two bytes"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": "  \n"}, "invalid_value", "input"),
        ({"input": "x" * 4097}, "invalid_value", "input"),
        ({"input": TEXT, "voice": "Nobody"}, "invalid_value", "voice"),
        ({"input": TEXT, "voice": 7}, "invalid_value", "voice"),
        ({"input": TEXT, "response_format": "midi"}, "invalid_value", "response_format"),
        ({"input": TEXT, "speed": 9}, "decimal_above_max_value", "speed"),
    ],
)
async def test_wrong_requests(body: Any, code: str, param: str) -> None:
    async with serving() as rig:
        answer = await rig.fetch("POST", "/v1/audio/speech", json.dumps(body))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
        assert rig.engine.contexts == []


async def test_an_engine_that_fails_before_it_speaks_and_in_the_middle() -> None:
    async with serving(Script(words=(), num_frames=0, status="failed", error="broken")) as rig:
        with pytest.raises(openai.InternalServerError, match="broken"):
            await speak(rig)
        rig.engine.script = Script(status="failed", error="broken")
        # what was cut off must not look whole; which error that is depends on the client's library
        with pytest.raises(Exception, match=r"(?i)incomplete|closed|connection"):
            await speak(rig)


async def test_a_model_that_can_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    import daemon_rig

    monkeypatch.setattr(daemon_rig, "READY", replace(READY, voices=()))
    async with serving() as rig:
        answer = await rig.fetch("POST", "/v1/audio/speech", json.dumps({"input": TEXT}))
        assert (answer.status, answer.error["param"]) == (400, "model")
