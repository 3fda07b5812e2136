"""`/v1/chat/completions`: one question with its history in, text and speech out.

Each request's conversation is rebuilt in an engine context of its own (`daemon.generations`). The
body's shape is `daemon.chat_request`, its meaning `daemon.chat_messages`, the answer's shape
`daemon.chat_answer`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from daemon.audio_files import whole_file
from daemon.auth import ApiKeys, Refusal
from daemon.chat_answer import ChatAnswer
from daemon.chat_messages import Transcripts, read_messages
from daemon.chat_request import ChatRequest
from daemon.generations import Generation, Prompt, generating
from daemon.http_answers import Body, MadeAnswer
from daemon.http_bodies import body_schema, read_model
from daemon.sessions import Sessions
from daemon.text_limits import chars_of, check_text
from daemon.wire_session import Voices
from daemon.wire_tools import tool_choice
from pipeline.messages import ResponseOptions
from pipeline.session_config import Sampling

log = logging.getLogger(__name__)


def add_chat(app: FastAPI, sessions: Sessions, keys: ApiKeys) -> None:
    """The route."""
    transcripts = Transcripts()

    @app.post("/v1/chat/completions", tags=["chat"], openapi_extra=body_schema(ChatRequest))
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation: text, sound, pictures and films in; text, speech and calls out."""
        grant = keys.check(request.headers)
        sessions.rates.take(grant.owner)
        sessions.places.check()
        limits = sessions.settings.limits
        asked = await read_model(request, ChatRequest, max_bytes=limits.max_upload_bytes)
        options = _options(asked)
        voice = _voice(asked, sessions.voices)
        conversation = await read_messages(asked.messages, sessions.settings, transcripts)
        tools = tuple(tool.function.for_template() for tool in asked.tools or ())
        num_chars = len(conversation.instructions) + chars_of(conversation.messages)
        check_text(num_chars, limits, param="messages")
        check_text(sum(map(len, tools)), limits, param="tools")
        prompt = Prompt(
            owner=grant.owner,
            instructions=conversation.instructions,
            voice=voice,
            messages=conversation.messages,
            tools=tools,
            options=options,
        )
        answer = ChatAnswer(request=asked, model=sessions.model_name)
        return MadeAnswer(_Chat(sessions, prompt, answer, transcripts).make)


def _options(asked: ChatRequest) -> ResponseOptions:
    """How the answer is made."""
    limit = asked.max_completion_tokens or asked.max_tokens
    seed = None if asked.seed is None else asked.seed % 2**63
    sampling = Sampling(temperature=asked.temperature, top_p=asked.top_p, seed=seed)
    options = ResponseOptions(
        audio=asked.has_audio,
        max_tokens=limit,
        stop=tuple(asked.stop or ()),
        **tool_choice(asked.choice),
    )
    return sampling.applied(options)


def _voice(asked: ChatRequest, voices: Voices) -> str | None:
    """The checkpoint's voice for the answer.

    Raises:
        ProtocolError: there is no such voice.
        Refusal: the checkpoint has none at all.
    """
    if not asked.has_audio:
        return None
    if not voices.available:
        raise Refusal(400, "This model does not speak.", "invalid_value", param="modalities")
    return voices.resolve(asked.voice_options.voice, param="audio.voice")


@dataclass(frozen=True, slots=True)
class _Chat:
    """One request, from its prompt to its answer."""

    sessions: Sessions
    prompt: Prompt
    answer: ChatAnswer
    transcripts: Transcripts

    async def make(self, body: Body) -> None:
        """See `daemon.http_answers.MadeAnswer`."""
        async with generating(self.sessions, self.prompt) as generation:
            if self.answer.request.is_streamed:
                await self._stream(body, generation)
                return
            async for part in generation:
                self.answer.take(part)
        assert generation.ended is not None
        whole = self.answer.whole(generation.ended, await self._audio_file())
        self._keep_transcript()
        await body.answer(JSONResponse(whole))

    async def _audio_file(self) -> bytes | None:
        request = self.answer.request
        if not request.has_audio or not len(self.answer.pcm):
            return None
        return await asyncio.to_thread(whole_file, request.voice_options.format, self.answer.pcm)

    async def _stream(self, body: Body, generation: Generation) -> None:
        answer = self.answer
        await body.begin("text/event-stream")
        try:
            await body.event(answer.first_chunk())
            async for part in generation:
                delta = answer.take(part)
                if delta is not None:
                    await body.event(answer.chunk(delta))
            assert generation.ended is not None
            self._keep_transcript()
            for chunk in answer.last_chunks(generation.ended):
                await body.event(chunk)
            await body.event("[DONE]")
        except Refusal as refusal:
            log.info("answer broke off code=%s", refusal.code)
            await body.event(refusal.body)
        await body.end()

    def _keep_transcript(self) -> None:
        if self.answer.request.has_audio:
            self.transcripts.keep(self.answer.audio_id, self.answer.text)
