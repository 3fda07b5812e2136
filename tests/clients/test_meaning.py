"""Is the reply right? The model that ships, asked through the daemon, in words and in sound."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from PIL import Image, ImageDraw

from clients.bench.exam import plain
from clients.bench.judge import Judge
from clients.bench.speech import read_sound

pytestmark = pytest.mark.timeout(240)

RATE_HZ = 24_000
COLOURS = {"red": (215, 25, 30), "green": (30, 160, 50), "blue": (35, 80, 200)}
ALL_COLOURS = (*COLOURS, "yellow", "orange", "purple", "black", "white")
LIGHT = ["The light is on.", "The light is off."]
GREETINGS = ["Hello! How can I help you?", "I am fine, thank you. How are you?"]
GREETINGS += ["You are welcome.", "Goodbye! See you soon.", "I am glad to hear that."]
SET_LIGHT = {
    "type": "function",
    "name": "set_light",
    "description": "Turn the light on or off.",
    "parameters": {
        "type": "object",
        "properties": {"state": {"enum": ["on", "off"]}},
        "required": ["state"],
    },
}


def picture(colour: tuple[int, int, int]) -> str:
    """A data URL of a wall with a square on it."""
    wall = Image.new("RGB", (320, 240), (150, 148, 140))
    ImageDraw.Draw(wall).rectangle((100, 60, 220, 180), fill=colour)
    stream = io.BytesIO()
    wall.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


async def prepare(connection: Any, **session: Any) -> None:
    audio = {"input": {"turn_detection": None}}
    settings = {"type": "realtime", "output_modalities": ["audio"], "audio": audio, **session}
    await connection.session.update(session=settings)


async def say(connection: Any, path: Path) -> None:
    pcm = read_sound(path, RATE_HZ).astype("<i2").tobytes()
    await connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())
    await connection.input_audio_buffer.commit()


async def show(connection: Any, colour: tuple[int, int, int]) -> None:
    part = {"type": "input_image", "image_url": picture(colour)}
    item = {"type": "message", "role": "user", "content": [part]}
    await connection.conversation.item.create(item=item)


async def reply(connection: Any) -> tuple[str, np.ndarray, list[Any]]:
    """What is answered: words, sound, calls."""
    await connection.response.create()
    text, sound = "", [b""]
    async for event in connection:
        match event.type:
            case "response.output_audio_transcript.delta":
                text += event.delta
            case "response.output_audio.delta":
                sound.append(base64.b64decode(event.delta))
            case "error":
                pytest.fail(event.error.message)
            case "response.done":
                assert event.response.status == "completed"
                calls = [one for one in event.response.output if one.type == "function_call"]
                return text, np.frombuffer(b"".join(sound), "<i2"), calls
    pytest.fail("the server went away")


def connect(url: str) -> Any:
    client = AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0)
    return client.realtime.connect(model="omnid")


async def test_a_greeting_is_answered_in_words_and_in_sound(
    embedded_server: str, fixtures: Path
) -> None:
    """An independent recogniser picks the reply out of all that the model says like this."""
    judge = Judge(GREETINGS)
    async with connect(embedded_server) as connection:
        await prepare(connection)
        await say(connection, fixtures / "hello_how_are_you.wav")
        text, sound, _ = await reply(connection)
        assert text in GREETINGS
        assert judge.heard(sound, RATE_HZ) == plain(text)


async def test_a_spoken_question_about_pictures_is_answered(
    embedded_server: str, fixtures: Path
) -> None:
    """In words and in sound: the recogniser chooses among all colours and some more. The voice is
    drawn, and one in 200 such replies is misheard, so that one of three may be.
    """
    judge = Judge([*(f"It is {name}." for name in ALL_COLOURS), *GREETINGS, *LIGHT])
    heard = []
    async with connect(embedded_server) as connection:
        await prepare(connection)
        for name, colour in COLOURS.items():
            await show(connection, colour)
            await say(connection, fixtures / "what_colour_is_this.wav")
            text, sound, calls = await reply(connection)
            assert text == f"It is {name}."
            assert not calls
            heard.append(judge.heard(sound, RATE_HZ) == plain(text))
    assert sum(heard) >= len(COLOURS) - 1


async def test_a_spoken_wish_becomes_a_call_and_its_result_is_told(
    embedded_server: str, fixtures: Path
) -> None:
    async with connect(embedded_server) as connection:
        await prepare(connection, tools=[SET_LIGHT])
        await say(connection, fixtures / "turn_on_the_light.wav")
        text, sound, (call,) = await reply(connection)
        assert (call.name, json.loads(call.arguments)) == ("set_light", {"state": "on"})
        assert text == ""
        assert not len(sound), "a call is never spoken"
        output = {"type": "function_call_output", "call_id": call.call_id}
        await connection.conversation.item.create(item={**output, "output": '{"result": "ok"}'})
        text, sound, calls = await reply(connection)
        assert text == "The light is on."
        assert not calls
        assert len(sound) > 0.5 * RATE_HZ


@pytest.mark.browser
async def test_the_page_tells_the_colour_that_the_camera_sees(
    browse: Callable[..., Any],
    embedded_server: str,
    microphone_wav: Callable[..., Path],
    red_camera: Path,
    tmp_path: Path,
) -> None:
    asked_twice = ("what_colour_is_this", "what_colour_is_this")  # a slow camera sees the second
    microphone = microphone_wav(asked_twice, (4.0, 9.0), end_s=30.0)
    async with browse(microphone, red_camera) as page:
        await page.goto(embedded_server)
        await page.wait_for_function("() => !document.getElementById('connect').disabled")
        assert await page.is_hidden("#babble")
        await page.click("#connect")
        await page.wait_for_function("() => omnid.state === 'listening'")
        await page.click("#camera")
        red = page.locator(".turn.assistant", has_text="It is red.")
        await red.first.wait_for(timeout=40_000)
        await page.wait_for_function(
            "() => omnid.events.some(e => e.event.type === 'response.done')", timeout=30_000
        )
        await page.screenshot(path=tmp_path / "page.png")
