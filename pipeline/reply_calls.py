"""The tool calls of replies: each an item of its own, behind what the reply said before it."""

from __future__ import annotations

from pipeline import events
from pipeline.history import new_id
from pipeline.items import CallContent, Item
from pipeline.log import ConversationLog
from pipeline.messages import ToolCallDelta
from pipeline.reply import Reply


class ReplyCalls:
    """Turns what the engine says of calls into items and events.

    `log`: where the items go; None: the replies are none of the conversation's.
    """

    def __init__(self, log: ConversationLog | None, *, emit: events.Emit) -> None:
        self._log = log
        self._emit = emit

    def take(self, reply: Reply, delta: ToolCallDelta) -> None:
        """More of one call."""
        item = reply.calls.get(delta.index) or self._begin(reply, delta)
        assert item.call is not None
        item.call.arguments += delta.arguments
        if delta.arguments:
            self._emit(
                events.ResponseCallDelta(
                    response_id=reply.id, item_id=item.id, arguments=delta.arguments
                )
            )
        if delta.is_done:
            self._finish(reply, item, is_whole=True)

    def close(self, reply: Reply) -> None:
        """The reply is over: what was not finished stays unfinished."""
        for item in reply.calls.values():
            if item.status == "in_progress":
                self._finish(reply, item, is_whole=False)

    def _begin(self, reply: Reply, delta: ToolCallDelta) -> Item:
        call = CallContent(name=delta.name, call_id=new_id("call"))
        item = Item(id=new_id("item"), role="assistant", content=[call], status="in_progress")
        after_id, reply.calls[delta.index] = reply.last_item_id, item
        if self._log is None:
            self._emit(events.ResponseItemStarted(response_id=reply.id, item=item))
            return item
        previous_id = self._log.place_reply(item, after_id=after_id)
        self._emit(events.ResponseItemStarted(response_id=reply.id, item=item))
        self._emit(events.ItemAdded(item=item, previous_item_id=previous_id))
        return item

    def _finish(self, reply: Reply, item: Item, *, is_whole: bool) -> None:
        item.status = "completed" if is_whole else "incomplete"
        previous_id = None if self._log is None else self._log.history.previous_id(item.id)
        self._emit(
            events.ResponseCallFinished(
                response_id=reply.id, item=item, previous_item_id=previous_id
            )
        )
