"""What the user said as text: the model itself is asked, beside the conversation, item by item.

Advisory only: the conversation goes on from the sound. One item at a time, so that a reply shares
the engine with one transcript at most; items that wait keep their order.
"""

from __future__ import annotations

import asyncio

from pipeline import events
from pipeline.engine_port import Context, Engine
from pipeline.errors import PipelineError
from pipeline.heard import Spawn
from pipeline.items import Item, SpeechContent
from pipeline.messages import (
    AudioPart,
    Message,
    ResponseEnded,
    ResponseOptions,
    TextDelta,
    TextPart,
)
from pipeline.session_config import Transcription

MAX_TOKENS = 1024
OPTIONS = ResponseOptions(audio=False, greedy=True, max_tokens=MAX_TOKENS, tool_choice="none")


class Transcripts:
    """See the module's docstring. `spawn` starts a named task of the session."""

    def __init__(self, engine: Engine, *, emit: events.Emit, spawn: Spawn) -> None:
        self._engine = engine
        self._emit = emit
        self._spawn = spawn
        self._turn = asyncio.Lock()

    def start(self, item: Item, settings: Transcription) -> None:
        """Transcribe an item of the user, if it holds speech."""
        content = item.content[0] if item.content else None
        if isinstance(content, SpeechContent) and len(content.pcm):
            self._spawn(self._make(item, content, settings), f"transcript {item.id}")

    async def _make(self, item: Item, content: SpeechContent, settings: Transcription) -> None:
        message = Message(
            role="user",
            parts=(AudioPart(pcm=content.pcm), TextPart(text=request_text(settings))),
        )
        async with self._turn:
            try:
                await self._engine.ready()
                context = self._engine.open(instructions="", voice=None)
                try:
                    context.append_message(message)
                    await self._follow(item, content, context)
                finally:
                    context.close()
            except PipelineError as error:
                self._emit(events.TranscriptFailed(item_id=item.id, error=str(error)))

    async def _follow(self, item: Item, content: SpeechContent, context: Context) -> None:
        text = ""
        async for event in context.respond(OPTIONS):
            if isinstance(event, TextDelta):
                text += event.text
                self._emit(events.TranscriptDelta(item_id=item.id, text=event.text))
            elif not isinstance(event, ResponseEnded):
                continue
            elif event.status in ("completed", "incomplete"):
                content.transcript = text
                done = events.TranscriptDone(item_id=item.id, text=text, usage=event.usage)
                self._emit(done)
            else:
                error = event.error or "the transcript was broken off"
                self._emit(events.TranscriptFailed(item_id=item.id, error=error))


def request_text(settings: Transcription) -> str:
    """What the model is asked, in the words that it was trained on, and what may help it."""
    language = f"{' or '.join(settings.languages)} " if settings.languages else ""
    words = f" These may occur: {', '.join(settings.keywords)}." if settings.keywords else ""
    hint = f" {settings.prompt}" if settings.prompt else ""
    return f"Transcribe the {language}audio into text.{words}{hint}"
