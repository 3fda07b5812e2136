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
from pipeline.history import joined, new_id, to_message
from pipeline.items import Item, TextContent, VoiceContent
from pipeline.messages import (
    AudioDelta,
    Message,
    ResponseEnded,
    ResponseOptions,
    ResponseStatus,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from pipeline.reply import Reply
from pipeline.reply_calls import ReplyCalls
from pipeline.session_config import SessionConfig

MAX_SIDE_REPLIES = 8


class SideReplies:
    """See the module's docstring. `spawn` starts a named task of the session."""

    def __init__(self, engine: Engine, *, emit: events.Emit, spawn: Spawn) -> None:
        self._engine = engine
        self._emit = emit
        self._spawn = spawn
        self._calls = ReplyCalls(None, emit=emit)
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
        messages = joined(message for item in items if (message := to_message(item)))
        reply = Reply(id=new_id("resp"), options=options, turn_end=None)
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
            if isinstance(event, ResponseEnded):
                self._settle(reply, event.status, usage=event.usage, error=event.error)
            elif not reply.is_settled:
                self._take(reply, event)
        self._settle(reply, "failed", error="the engine ended the reply without a word")

    def _take(self, reply: Reply, event: TextDelta | AudioDelta | ToolCallDelta) -> None:
        if isinstance(event, ToolCallDelta):
            self._calls.take(reply, event)
            return
        item_id = self._item(reply).id
        if isinstance(event, TextDelta):
            reply.add_text(event.text)
            self._emit(events.ResponseText(response_id=reply.id, item_id=item_id, text=event.text))
        else:
            reply.add_audio(event)
            self._emit(events.ResponseAudio(response_id=reply.id, item_id=item_id, pcm=event.pcm))

    def _item(self, reply: Reply) -> Item:
        if reply.item is None:
            content = VoiceContent() if reply.options.audio else TextContent(text="")
            reply.item = Item(
                id=new_id("item"), role="assistant", content=[content], status="in_progress"
            )
            self._emit(events.ResponseItemStarted(response_id=reply.id, item=reply.item))
        return reply.item

    def _settle(
        self,
        reply: Reply,
        status: ResponseStatus,
        *,
        reason: events.CancelReason | None = None,
        usage: Usage | None = None,
        error: str | None = None,
    ) -> None:
        """End a reply, the first time that this is called for it."""
        if reply.is_settled:
            return
        reply.is_settled = True
        del self._active[reply.id]
        self._calls.close(reply)
        if reply.item is not None:
            reply.item.status = "completed" if status == "completed" else "incomplete"
        self._emit(
            events.ResponseFinished(
                response_id=reply.id,
                item=reply.item,
                previous_item_id=None,
                status=status,
                reason="max_output_tokens" if status == "incomplete" else reason,
                usage=usage or reply.usage_so_far(),
                error=error,
            )
        )
