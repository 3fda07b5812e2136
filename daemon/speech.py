"""`/v1/audio/speech`: a text in, the same text spoken out.

The model is asked to read the text aloud, and its answer is the text itself: the thinker writes
nothing, the talker speaks the words that it is given (`ResponseOptions.script`).
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import Field

from daemon.audio_files import MEDIA_TYPES, AudioFile, FileFormat
from daemon.auth import ApiKeys, Refusal
from daemon.generations import Generation, Prompt, generating
from daemon.http_answers import Body, MadeAnswer
from daemon.http_bodies import RestModel, body_schema, read_model
from daemon.sessions import Sessions
from pipeline.messages import AudioDelta, Message, ResponseOptions, TextPart, Usage
from pipeline.time_stretch import TimeStretch

MAX_INPUT_CHARS = 4_096
REQUEST = "Read the following text aloud, word for word:"


class SpeechRequest(RestModel):
    """The body. `instructions`: how the text shall be read, told to the model in words."""

    input: str = Field(min_length=1, max_length=MAX_INPUT_CHARS)
    model: str = Field(default="", max_length=300)
    voice: str = Field(default="default", max_length=100)
    instructions: str = Field(default="", max_length=4_096)
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"
    seed: int | None = Field(default=None, ge=0, lt=2**63)


def add_speech(app: FastAPI, sessions: Sessions, keys: ApiKeys) -> None:
    """The route."""

    @app.post("/v1/audio/speech", tags=["audio"], openapi_extra=body_schema(SpeechRequest))
    async def speech(request: Request) -> Response:
        """Speak a text; the sound is sent while it is being made."""
        grant = keys.check(request.headers)
        sessions.rates.take(grant.owner)
        sessions.places.check()
        limits = sessions.settings.limits
        asked = await read_model(request, SpeechRequest, max_bytes=limits.max_upload_bytes)
        if not sessions.voices.available:
            raise Refusal(400, "This model does not speak.", "invalid_value", param="model")
        if not asked.input.strip():
            raise Refusal(400, "There is nothing to say.", "invalid_value", param="input")
        prompt = Prompt(
            owner=grant.owner,
            instructions="",
            voice=sessions.voices.resolve(asked.voice, param="voice"),
            messages=(_question(asked),),
            options=ResponseOptions(script=asked.input, seed=asked.seed),
        )
        return MadeAnswer(_Speech(sessions, prompt, asked).make)


def _question(asked: SpeechRequest) -> Message:
    """What a person would say for the text to be the right answer."""
    asks = (asked.instructions, f"{REQUEST}\n{asked.input}")
    return Message(role="user", parts=(TextPart(text="\n".join(filter(None, asks))),))


@dataclass(frozen=True, slots=True)
class _Speech:
    """One request, from its prompt to its sound."""

    sessions: Sessions
    prompt: Prompt
    asked: SpeechRequest

    async def make(self, body: Body) -> None:
        """See `daemon.http_answers.MadeAnswer`."""
        async with generating(self.sessions, self.prompt) as generation:
            if self.asked.stream_format == "sse":
                await self._events(body, generation)
            else:
                await body.begin(MEDIA_TYPES[self.asked.response_format])
                await self._sound(generation, body.piece)
                await body.end()

    async def _events(self, body: Body, generation: Generation) -> None:
        async def send(data: bytes) -> None:
            if data:
                text = base64.b64encode(data).decode("ascii")
                await body.event({"type": "speech.audio.delta", "audio": text})

        await body.begin("text/event-stream")
        try:
            await self._sound(generation, send)
            assert generation.ended is not None
            usage = _usage(generation.ended.usage)
            await body.event({"type": "speech.audio.done", "usage": usage})
        except Refusal as refusal:
            await body.event({"type": "error", **refusal.body})
        await body.end()

    async def _sound(
        self, generation: Generation, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        form: FileFormat = self.asked.response_format
        stretch, file = TimeStretch(self.asked.speed), AudioFile(form)
        async for part in generation:
            if isinstance(part, AudioDelta):
                await send(file.push(stretch.push(part.pcm)))
        await send(file.push(stretch.flush()) + file.close())


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_text_tokens,
        "output_tokens": usage.output_audio_tokens,
        "total_tokens": usage.input_text_tokens + usage.output_audio_tokens,
    }
