"""`/v1/chat/completions` by the openai SDK, unchanged, and by bare requests."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from fractions import Fraction
from typing import Any

import av
import numpy as np
import openai
import pytest
from daemon_rig import Rig, serving, tone, until
from fake_engine import Script, line_of
from openai import AsyncOpenAI, OpenAI

from daemon.audio_files import whole_file

ASK: list[Any] = [{"role": "user", "content": "Hi"}]
NUM_SAMPLES = 8 * 1920
CALL = Script(words=(), num_frames=0, calls=(("look", '{"at": "the sky"}'),))
LOOK: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


def sdk(rig: Rig) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="any", base_url=f"{rig.http}/v1", max_retries=0)


async def ask(rig: Rig, **options: Any) -> Any:
    """One request by the SDK; of a stream, its chunks."""
    async with sdk(rig) as client:
        found = await client.chat.completions.create(**{"model": "m", "messages": ASK, **options})
        return [chunk async for chunk in found] if options.get("stream") else found


def wav_base64(seconds: float = 0.5) -> str:
    pcm = np.frombuffer(tone(seconds), "<i2")
    return base64.b64encode(whole_file("wav", pcm)).decode()


def png_url(width: int = 6, height: int = 4) -> str:
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), format="rgb24")
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = width, height, "rgb24"
    codec.time_base = Fraction(1, 1)
    data = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def story(rig: Rig) -> list[str]:
    return [line_of(entry) for entry in rig.engine.context.entries[:-1]]


def read_wav(data: str) -> np.ndarray:
    with wave.open(io.BytesIO(base64.b64decode(data))) as found:
        assert (found.getframerate(), found.getnchannels()) == (24_000, 1)
        return np.frombuffer(found.readframes(found.getnframes()), "<i2")


async def nothing_is_left(rig: Rig) -> None:
    await until(lambda: all(context.is_closed for context in rig.engine.contexts))
    assert rig.app.state.sessions.places.check() is None
    assert 'omnid_sessions{transport="http"} 0.0' in (await rig.fetch("GET", "/metrics")).text


# ------------------------------------------------------------------ text
async def test_a_text_answer() -> None:
    async with serving() as rig:
        answer = await ask(
            rig,
            model="any",
            messages=[
                {"role": "system", "content": "Be"},
                {"role": "developer", "content": "brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": [{"type": "text", "text": "Count"}]},
            ],
        )
        assert answer.choices[0].message.content == "One two three four"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "fake-omni"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
        assert rig.engine.context.instructions == "Be\n\nbrief."
        assert story(rig) == ["user: Hi", "assistant: Hello", "user: Count"]
        assert rig.engine.response.options.audio is False
        await nothing_is_left(rig)


async def test_a_text_stream_with_usage() -> None:
    async with serving() as rig:
        chunks = await ask(rig, stream=True, stream_options={"include_usage": True})
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == "One two three four"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 11
        assert len({chunk.id for chunk in chunks}) == 1


async def test_the_options_of_a_request_reach_the_engine() -> None:
    async with serving() as rig:
        await ask(
            rig,
            model="m",
            messages=ASK,
            temperature=0.5,
            top_p=0.9,
            seed=-1,
            stop=["END", "\n"],
            max_completion_tokens=12,
        )
        options = rig.engine.response.options
        assert (options.temperature, options.top_p, options.stop) == (0.5, 0.9, ("END", "\n"))
        assert (options.max_tokens, options.seed, options.greedy) == (12, 2**63 - 1, False)
        await ask(rig, temperature=0, max_tokens=3)
        options = rig.engine.response.options
        assert (options.greedy, options.max_tokens) == (True, 3)


async def test_an_answer_that_was_cut_says_so() -> None:
    async with serving(Script(status="incomplete")) as rig:
        answer = await ask(
            rig,
        )
        assert answer.choices[0].finish_reason == "length"


async def test_the_synchronous_client() -> None:
    def talk(rig: Rig) -> tuple[str | None, str, list[str]]:
        with OpenAI(api_key="any", base_url=f"{rig.http}/v1") as client:
            whole = client.chat.completions.create(model="m", messages=ASK)
            stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            models = [model.id for model in client.models.list()]
            assert client.models.retrieve("fake-omni").id == "fake-omni"
            return whole.choices[0].message.content, text, models

    async with serving() as rig:
        found = await asyncio.to_thread(talk, rig)
        assert found == ("One two three four", "One two three four", ["fake-omni"])


# ------------------------------------------------------------------ speech
async def test_a_spoken_answer_and_its_place_in_the_next_request() -> None:
    async with serving() as rig:
        answer = await ask(
            rig,
            model="m",
            messages=ASK,
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "wav"},
        )
        message = answer.choices[0].message
        assert message.audio is not None
        assert message.audio.transcript == "One two three four"
        samples = read_wav(message.audio.data)
        assert (len(samples), samples[0], samples[-1]) == (NUM_SAMPLES, 1, 8)
        history: list[Any] = [*ASK, {"role": "assistant", "audio": {"id": message.audio.id}}, *ASK]
        await ask(rig, model="m", messages=history)
        assert story(rig) == ["user: Hi", "assistant: One two three four", "user: Hi"]
        unknown = [{"role": "assistant", "audio": {"id": "audio_x"}}]
        with pytest.raises(openai.BadRequestError, match="not known") as caught:
            await ask(rig, messages=unknown)
        assert caught.value.param == "messages[0].audio.id"


@pytest.mark.parametrize("form", ["mp3", "opus", "flac", "pcm16"])
async def test_formats_of_a_spoken_answer(form: Any) -> None:
    async with serving() as rig:
        answer = await ask(
            rig,
            model="m",
            messages=ASK,
            modalities=["audio"],  # type: ignore[list-item]
            audio={"voice": "Chelsie", "format": form},
        )
        audio = answer.choices[0].message.audio
        assert audio is not None
        data = base64.b64decode(audio.data)
        if form == "pcm16":
            assert len(data) == 2 * NUM_SAMPLES
        else:
            with av.open(io.BytesIO(data)) as container:
                seconds = sum(f.samples / f.sample_rate for f in container.decode(audio=0))
            assert seconds == pytest.approx(NUM_SAMPLES / 24_000, abs=0.12)
        assert rig.engine.context.voice == "Chelsie"


async def test_a_spoken_stream_as_openais_clients_read_it() -> None:
    async with serving() as rig, sdk(rig) as client:
        stream = await client.chat.completions.create(
            model="m",
            messages=ASK,
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "pcm16"},
            stream=True,
        )
        data, transcript, audio_ids = b"", "", set()
        async for chunk in stream:
            audio = chunk.choices[0].delta.audio
            if audio is not None:
                data += base64.b64decode(audio.data or "")
                transcript += audio.transcript or ""
                audio_ids.add(audio.id)
        assert transcript == "One two three four"
        assert len(data) == 2 * NUM_SAMPLES
        assert len(audio_ids) == 1


async def test_a_spoken_stream_as_qwens_examples_read_it() -> None:
    """All base64 is joined before it is read once, and the format is called "wav"."""
    async with serving() as rig, sdk(rig) as client:
        stream = await client.chat.completions.create(
            model="qwen3-omni-flash",
            messages=ASK,
            modalities=["text", "audio"],
            audio={"voice": "Ethan", "format": "wav"},
            stream=True,
            stream_options={"include_usage": True},
        )
        joined, text, usage = "", "", None
        async for chunk in stream:
            if not chunk.choices:
                usage = chunk.usage
                continue
            delta = chunk.model_dump()["choices"][0]["delta"]
            text += delta["content"] or ""
            joined += (delta.get("audio") or {}).get("data") or ""
        samples = np.frombuffer(base64.b64decode(joined, validate=True), np.int16)
        assert (len(samples), samples[0], samples[-1]) == (NUM_SAMPLES, 1, 8)
        assert text == "One two three four"
        assert usage is not None


# ------------------------------------------------------------------ media in
async def test_sound_and_pictures_in_every_spelling() -> None:
    content = [
        {"type": "input_audio", "input_audio": {"data": wav_base64(), "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{wav_base64(1.0)}"}},
        {"type": "input_audio", "input_audio": {"data": f"data:;base64,{wav_base64()}"}},
        {"type": "image_url", "image_url": {"url": png_url()}},
        {"type": "image_url", "image_url": png_url()},
        {"type": "video", "video": [png_url(), png_url()]},
        {"type": "text", "text": "What is it?"},
    ]
    async with serving() as rig:
        messages: Any = [{"role": "user", "content": content}]
        await ask(rig, messages=messages)
        assert story(rig) == [
            "user: <0.500 s> <1.000 s> <0.500 s> <picture 6x4> <picture 6x4> "
            "<1.000 s, 2 frames> What is it?"
        ]


def film(*, has_sound: bool) -> str:
    """A second of pictures, ten of them, and sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=24_000) if has_sound else None
        if audio is not None:
            audio.layout = "mono"
            pcm = np.frombuffer(tone(1.0), "<i2")[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate = 24_000
            container.mux([*audio.encode(frame), *audio.encode(None)])
        for shade in range(10):
            picture = np.full((48, 64, 3), 20 * shade, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return f"data:video/mp4;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.mark.parametrize("has_sound", [True, False])
async def test_a_film_with_and_without_sound(has_sound: bool) -> None:
    async with serving() as rig:
        part = {"type": "video_url", "video_url": {"url": film(has_sound=has_sound)}}
        messages: Any = [{"role": "user", "content": [part]}]
        await ask(rig, messages=messages)
        sound = rig.engine.context.entries[0].parts[0]  # type: ignore[union-attr]
        assert [frame.time_s for frame in sound.frames] == pytest.approx([0, 0.5])
        assert len(sound.pcm) == pytest.approx(16_000, abs=1_500)
        assert bool(np.abs(sound.pcm).max() > 0.1) is has_sound


# ------------------------------------------------------------------ tools
async def test_a_tool_call_and_its_result() -> None:
    async with serving(CALL) as rig:
        answer = await ask(rig, tools=[LOOK])
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.tool_calls is not None
        call = choice.message.tool_calls[0]
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("look", '{"at": "the sky"}')
        assert json.loads(rig.engine.context.tools[0])["function"]["name"] == "look"
        rig.engine.script = Script()
        result = {"role": "tool", "tool_call_id": call.id, "content": "blue"}
        messages: Any = [*ASK, choice.message, result]
        await ask(rig, messages=messages, tools=[LOOK])
        assert story(rig) == ["user: Hi", 'assistant: look({"at": "the sky"})', "user: -> blue"]


async def test_a_streamed_tool_call() -> None:
    async with serving(CALL) as rig, sdk(rig) as client:
        async with client.chat.completions.stream(
            model="m", messages=ASK, tools=[LOOK], tool_choice="required"
        ) as stream:
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert calls is not None
        assert [(c.function.name, c.function.arguments) for c in calls] == [
            ("look", '{"at": "the sky"}')
        ]
        assert final.choices[0].finish_reason == "tool_calls"
        assert rig.engine.response.options.tool_choice == "required"


@pytest.mark.parametrize(
    ("choice", "has_tools", "expected"),
    [
        (None, False, ("none", None)),
        (None, True, ("auto", None)),
        ("none", True, ("none", None)),
        ({"type": "function", "function": {"name": "look"}}, True, ("required", "look")),
    ],
)
async def test_tool_choices(choice: Any, has_tools: bool, expected: tuple[str, Any]) -> None:
    async with serving() as rig:
        body = {"messages": ASK, "tool_choice": choice, "tools": [LOOK] if has_tools else None}
        assert (await rig.fetch("POST", "/v1/chat/completions", json.dumps(body))).status == 200
        options = rig.engine.response.options
        assert (options.tool_choice, options.forced_tool) == expected


# ------------------------------------------------------------------ what goes wrong
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_client_that_goes_away_stops_the_engine(is_streamed: bool) -> None:
    async with serving(Script(holds_at=2)) as rig:
        body = json.dumps({"messages": ASK, "stream": is_streamed}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        )
        writer.write(f"{head}\r\n\r\n".encode() + body)
        if is_streamed:
            await reader.readuntil(b"two")
        else:
            await until(lambda: rig.engine.responses and rig.engine.response.said)
        assert not rig.engine.context.is_closed
        writer.close()
        await nothing_is_left(rig)


async def test_an_engine_that_fails_before_the_first_word_and_behind_it() -> None:
    async with serving(Script(words=(), num_frames=0, status="failed", error="broken")) as rig:
        for is_streamed in (True, False):
            with pytest.raises(openai.InternalServerError, match="broken"):
                await ask(rig, stream=is_streamed)
        rig.engine.script = Script(status="failed", error="broken")
        with pytest.raises(openai.APIError, match="broken"):
            await ask(rig, stream=True)
        for refusal, code in (
            ("context_full", "context_length_exceeded"),
            ("request", "invalid_value"),
        ):
            rig.engine.script = Script(
                words=(), num_frames=0, status="failed", error="no", refusal=refusal
            )
            with pytest.raises(openai.BadRequestError) as caught:
                await ask(rig)
            assert caught.value.code == code
        for refusal, status, code in (
            ("overloaded", 503, "overloaded"),
            ("tool_call", 500, "invalid_tool_arguments"),
        ):
            rig.engine.script = Script(
                words=(), num_frames=0, status="failed", error="no", refusal=refusal
            )
            with pytest.raises(openai.InternalServerError) as failed:
                await ask(rig)
            assert (failed.value.status_code, failed.value.code) == (status, code)
        await nothing_is_left(rig)


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


IMAGE = "messages[0].content[0].image_url.url"
AUDIO = "messages[0].content[0].input_audio.data"
WRONG: list[tuple[Any, str, str | None]] = [
    ("{", "invalid_json", None),
    ("[]", "invalid_value", None),
    ({}, "missing_required_parameter", "messages"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "Hi"}, "invalid_value", "messages"),
    ({"messages": [{"role": "pope", "content": "x"}]}, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "invalid_value", "messages[0]"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0]"),
    (
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]},
        "invalid_value",
        "messages[0].tool_call_id",
    ),
    (user({"type": "smell"}), "invalid_value", "messages[0].content[0].type"),
    (user({"type": "image_url"}), "invalid_value", "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": "x"}}), "invalid_value", IMAGE),
    (user({"type": "image_url", "image_url": "data:,x"}), "invalid_value", IMAGE),
    (user({"type": "image_url", "image_url": "data:a;base64,AAAA"}), "invalid_value", IMAGE),
    (user({"type": "image_url", "image_url": "http://a.b/c"}), "url_not_allowed", IMAGE),
    (user({"type": "image_url", "image_url": "http://["}), "url_not_allowed", IMAGE),
    (user({"type": "image_url", "image_url": "file:///etc/passwd"}), "invalid_value", IMAGE),
    (user({"type": "input_audio", "input_audio": {"data": "!"}}), "invalid_value", AUDIO),
    (user({"type": "input_audio", "input_audio": {"data": "AAAA"}}), "invalid_value", AUDIO),
    ({"messages": ASK, "n": 2}, "integer_above_max_value", "n"),
    ({"messages": ASK, "temperature": 3}, "decimal_above_max_value", "temperature"),
    ({"messages": ASK, "top_p": -1}, "decimal_below_min_value", "top_p"),
    ({"messages": ASK, "max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    ({"messages": ASK, "stop": ["a"] * 5}, "invalid_value", "stop"),
    ({"messages": ASK, "logprobs": True}, "invalid_value", "logprobs"),
    ({"messages": ASK, "tool_choice": "required"}, "invalid_value", None),
    ({"messages": ASK, "tool_choice": "perhaps"}, "invalid_value", "tool_choice"),
    ({"messages": ASK, "tools": [LOOK, LOOK]}, "invalid_value", None),
    (
        {"messages": ASK, "response_format": {"type": "json_object"}},
        "invalid_value",
        "response_format",
    ),
    ({"messages": ASK, "modalities": ["smell"]}, "invalid_value", "modalities[0]"),
    (
        {"messages": ASK, "modalities": ["audio"], "audio": {"voice": "Nobody"}},
        "invalid_value",
        "audio.voice",
    ),
    (
        {"messages": ASK, "modalities": ["audio"], "audio": {"format": "mp3"}, "stream": True},
        "invalid_value",
        None,
    ),
]


@pytest.mark.parametrize(("body", "code", "param"), WRONG)
async def test_wrong_requests(body: Any, code: str, param: str | None) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    async with serving() as rig:
        answer = await rig.fetch("POST", "/v1/chat/completions", text)
        error = answer.error
        assert (answer.status, error["type"]) == (400, "invalid_request_error"), error
        assert (error["code"], error["param"]) == (code, param)
        assert rig.engine.contexts == []


async def test_a_fetch_from_a_host_that_is_allowed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/away" in head:
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\n\r\n")
        else:
            data = base64.b64decode(wav_base64())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, serving(server__media_hosts=["127.0.0.1"]) as rig:
        url = f"http://127.0.0.1:{port}/a.wav"
        part = {"type": "audio_url", "audio_url": {"url": url}}
        path = "/v1/chat/completions"
        assert (await rig.fetch("POST", path, json.dumps(user(part)))).status == 200
        assert story(rig) == ["user: <0.500 s>"]
        part["audio_url"] = {"url": f"http://127.0.0.1:{port}/away"}
        answer = await rig.fetch("POST", path, json.dumps(user(part)))
        assert answer.error["code"] == "url_not_reachable"
