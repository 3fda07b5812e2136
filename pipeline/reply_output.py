"""What a reply says, writes and calls, as items and events.

The same for replies of the conversation and for those beside it.
"""

from __future__ import annotations

import numpy as np

from pipeline import events
from pipeline.history import new_id
from pipeline.items import Item, TextContent, VoiceContent
from pipeline.log import ConversationLog
from pipeline.messages import (
    AudioDelta,
    Pcm16,
    Refusal,
    ResponseStatus,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from pipeline.reply import Reply
from pipeline.reply_calls import ReplyCalls


class ReplyOutput:
    """Turns what the engine says into items and events.

    `log`: where the items go; None: the replies are none of the conversation's.
    """

    def __init__(self, log: ConversationLog | None, *, emit: events.Emit) -> None:
        self._log = log
        self._emit = emit
        self._calls = ReplyCalls(log, emit=emit)

    def take(self, reply: Reply, event: TextDelta | AudioDelta | ToolCallDelta) -> Pcm16:
        """More of a reply; returns the speech that can be played now, perhaps none."""
        if isinstance(event, ToolCallDelta):
            self._calls.take(reply, event)
            return np.zeros(0, np.int16)
        item_id = self._item(reply).id
        if isinstance(event, AudioDelta):
            return self._spoken(reply, reply.add_audio(event))
        reply.add_text(event.text)
        self._emit(events.ResponseText(response_id=reply.id, item_id=item_id, text=event.text))
        return np.zeros(0, np.int16)

    def end_speech(self, reply: Reply) -> Pcm16:
        """The engine has said all: the speech that was still held back, perhaps none."""
        return self._spoken(reply, reply.end_audio())

    def finished(
        self,
        reply: Reply,
        status: ResponseStatus,
        *,
        previous_item_id: str | None,
        reason: events.CancelReason | None,
        usage: Usage | None,
        error: str | None,
        refusal: Refusal | None,
    ) -> None:
        """Tell the end of a reply whose items have their final form."""
        self._emit(
            events.ResponseFinished(
                response_id=reply.id,
                item=reply.item,
                previous_item_id=previous_item_id,
                status=status,
                reason="max_output_tokens" if status == "incomplete" else reason,
                usage=usage or reply.usage_so_far(),
                error=error,
                refusal=refusal,
            )
        )

    def close_items(self, reply: Reply, status: ResponseStatus) -> None:
        """Nothing more comes: what is unfinished stays so."""
        self._calls.close(reply)
        if reply.item is not None:
            reply.item.status = "completed" if status == "completed" else "incomplete"

    def _spoken(self, reply: Reply, pcm: Pcm16) -> Pcm16:
        if len(pcm):
            item_id = self._item(reply).id
            self._emit(events.ResponseAudio(response_id=reply.id, item_id=item_id, pcm=pcm))
        return pcm

    def _item(self, reply: Reply) -> Item:
        """What the reply says or writes; it begins to be at the first output."""
        if reply.item is None:
            content = VoiceContent() if reply.options.audio else TextContent(text="")
            reply.item = Item(
                id=new_id("item"), role="assistant", content=[content], status="in_progress"
            )
            self._begin(reply, reply.item)
        return reply.item

    def _begin(self, reply: Reply, item: Item) -> None:
        begun = events.ResponseItemStarted(response_id=reply.id, item=item)
        if self._log is None:
            self._emit(begun)
            return
        previous_id = self._log.place_reply(item, after_id=reply.anchor_id)
        self._emit(begun)
        self._emit(events.ItemAdded(item=item, previous_item_id=previous_id))
