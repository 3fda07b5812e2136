"""Answers to single HTTP requests: each in an engine context of its own, closed when it is over.

Nothing waits behind a client that went away: closing the context cancels the engine's work. What a
request wants is `Prompt`; how the answer looks is the routes' affair.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from daemon.auth import Refusal
from daemon.sessions import SHUTTING_DOWN, Sessions
from pipeline.messages import (
    AudioDelta,
    Message,
    ResponseEnded,
    ResponseOptions,
    TextDelta,
    ToolCallDelta,
)

Delta = TextDelta | AudioDelta | ToolCallDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the engine is asked. `owner`: whose limits it counts for."""

    owner: str
    instructions: str
    voice: str | None
    messages: tuple[Message, ...]
    options: ResponseOptions
    tools: tuple[str, ...] = ()


class Generation:
    """One answer under way: iterate over its parts; afterwards `ended` tells how it went."""

    def __init__(self, events: AsyncIterator[Delta | ResponseEnded]) -> None:
        self._events = events
        self._next: Delta | None = None
        self.ended: ResponseEnded | None = None

    async def begin(self) -> None:
        """Wait for the first part, so that what fails before it can be told by a status.

        Raises:
            Refusal: it failed.
        """
        self._next = await self._take()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Raises Refusal where the answer fails or the server stops."""
        part = self._next or await self._take()
        self._next = None
        while part is not None:
            yield part
            part = await self._take()

    async def _take(self) -> Delta | None:
        if self.ended is not None:
            return None
        event = await anext(self._events)
        if not isinstance(event, ResponseEnded):
            return event
        self.ended = event
        if event.status == "failed":
            raise _failure(event)
        if event.status == "cancelled":
            raise Refusal(503, SHUTTING_DOWN, "server_shutting_down", retry_after_s=5)
        return None


def _failure(event: ResponseEnded) -> Refusal:
    error = event.error or "the engine says nothing of it"
    if event.refusal is None:
        return Refusal(500, f"The answer failed: {error}.", "engine_error")
    if event.refusal == "tool_call":
        return Refusal(500, f"The answer failed: {error}.", "invalid_tool_arguments")
    if event.refusal == "overloaded":
        return Refusal(503, f"The answer failed: {error}.", "overloaded", retry_after_s=5)
    code = "context_length_exceeded" if event.refusal == "context_full" else "invalid_value"
    message = error[0].upper() + error[1:]
    return Refusal(400, f"{message}.", code, param="messages")


@contextlib.asynccontextmanager
async def generating(sessions: Sessions, prompt: Prompt) -> AsyncIterator[Generation]:
    """Make an answer; on leaving, however, nothing of it is left.

    Raises:
        Refusal: there is no place for it, or it failed before it began.
    """
    with contextlib.ExitStack() as ends:
        ends.callback(sessions.take_place("http", prompt.owner).release)
        context = sessions.engine.open(
            instructions=prompt.instructions, voice=prompt.voice, tools=prompt.tools
        )
        ends.callback(context.close)
        if prompt.messages:
            context.rebuild(prompt.messages)
        response = context.respond(prompt.options)
        ends.enter_context(sessions.cancelled_at_end(response.cancel))
        generation = Generation(aiter(response))
        await generation.begin()
        yield generation
