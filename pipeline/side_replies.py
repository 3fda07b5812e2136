"""Replies beside the conversation: each in an engine context of its own, none of them remembered.

They run next to the conversation's reply and next to each other. Nobody interrupts them but their
owner; nothing of them is played or kept. Bound: `MAX_SIDE_REPLIES` at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import events
from pipeline.engine_port import Context, Engine
from pipeline.errors import BadInputError, PipelineError
from pipeline.heard import Spawn
from pipeline.history import new_id, to_messages
from pipeline.items import Item
from pipeline.messages import (
    Message,
    Refusal,
    ResponseEnded,
    ResponseOptions,
    ResponseStatus,
    Usage,
)
from pipeline.reply import Reply
from pipeline.reply_output import ReplyOutput
from pipeline.session_config import SessionConfig

MAX_SIDE_REPLIES = 8


class SideReplies:
    """See the module's docstring. `spawn` starts a named task of the session."""

    def __init__(self, engine: Engine, *, emit: events.Emit, spawn: Spawn) -> None:
        self._engine = engine
        self._emit = emit
        self._spawn = spawn
        self._output = ReplyOutput(None, emit=emit)
        self._active: dict[str, Reply] = {}

    def start(self, options: ResponseOptions, config: SessionConfig, items: Iterable[Item]) -> str:
        """Begin a reply to these items as they are now; returns its id.

        Raises:
            BadInputError: too many are being made already.
        """
        if len(self._active) >= MAX_SIDE_REPLIES:
            raise BadInputError(
                f"At most {MAX_SIDE_REPLIES} responses out of band at once.",
                code="rate_limit_exceeded",
            )
        messages = to_messages(items)
        reply = Reply(id=new_id("resp"), options=options, turn_end=None, speed=config.speed)
        self._active[reply.id] = reply
        self._emit(
            events.ResponseStarted(response_id=reply.id, has_audio=options.audio, is_aside=True)
        )
        self._spawn(self._make(reply, config, messages), f"side reply {reply.id}")
        return reply.id

    def cancel(self, response_id: str | None) -> bool:
        """Stop one; False if there is none of this id."""
        reply = self._active.get(response_id or "")
        if reply is None:
            return False
        if reply.response is not None:
            reply.response.cancel()
        self._settle(reply, "cancelled", reason="client_cancelled")
        return True

    def close(self) -> None:
        """End them all: the session is over."""
        for response_id in list(self._active):
            self.cancel(response_id)

    async def _make(
        self, reply: Reply, config: SessionConfig, messages: tuple[Message, ...]
    ) -> None:
        context: Context | None = None
        try:
            await self._engine.ready()
            context = self._engine.open(
                instructions=config.instructions, voice=config.voice, tools=config.tools
            )
            if messages:
                context.rebuild(messages)
            if not reply.is_settled:
                await self._follow(reply, context)
        except PipelineError as error:
            self._settle(reply, "failed", error=str(error))
        finally:
            if context is not None:
                context.close()

    async def _follow(self, reply: Reply, context: Context) -> None:
        reply.response = context.respond(reply.options)
        async for event in reply.response:
            if reply.is_settled:
                continue
            if isinstance(event, ResponseEnded):
                self._output.end_speech(reply)
                self._settle(
                    reply,
                    event.status,
                    usage=event.usage,
                    error=event.error,
                    refusal=event.refusal,
                )
            else:
                self._output.take(reply, event)
        self._settle(reply, "failed", error="the engine ended the reply without a word")

    def _settle(
        self,
        reply: Reply,
        status: ResponseStatus,
        *,
        reason: events.CancelReason | None = None,
        usage: Usage | None = None,
        error: str | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        """End a reply, the first time that this is called for it."""
        if reply.is_settled:
            return
        reply.is_settled = True
        del self._active[reply.id]
        self._output.close_items(reply, status)
        self._output.finished(
            reply,
            status,
            previous_item_id=None,
            reason=reason,
            usage=usage,
            error=error,
            refusal=refusal,
        )
