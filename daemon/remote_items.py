"""Items of remote tools in a conversation: which of them clients see, and behind which others.

What a tool answered is an item for the model alone; clients see it in the item of the call.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.protocol import ServerEvent
from daemon.protocol import server_events as ev
from daemon.wire_items import view_of
from pipeline.conversation import Conversation
from pipeline.errors import BadInputError
from pipeline.history import new_id
from pipeline.items import Item, NoteContent


class RemoteItems:
    """See the module's docstring. `send`: takes server events."""

    def __init__(self, conversation: Conversation, send: Callable[[ServerEvent], None]) -> None:
        self._conversation = conversation
        self._send = send
        self._outputs: dict[str, str] = {}  # of hidden items: the call that each answers
        self._previous: dict[str, str | None] = {}  # of hidden items and those not closed yet

    def is_hidden(self, item_id: str) -> bool:
        """Whether clients do not know of an item."""
        return item_id in self._outputs

    def shown_before(self, item: Item, previous_id: str | None) -> str | None:
        """What a client sees before an item that enters the conversation or is done."""
        while previous_id in self._outputs:
            previous_id = self._previous.get(previous_id)
        if self.is_hidden(item.id) or item.status == "in_progress":
            self._previous[item.id] = previous_id
        return previous_id

    def hide(self, item: Item, *, answers: Item) -> None:
        """Put the answer to a call into the conversation.

        Raises:
            BadInputError: the call was deleted, or the conversation is full.
        """
        self._outputs[item.id] = answers.id
        try:
            self._conversation.create_item(item)
        except BadInputError:
            del self._outputs[item.id]
            raise

    def deleted(self, item_id: str) -> None:
        """A call was deleted: its answer goes with it."""
        for output_id, call_id in list(self._outputs.items()):
            if call_id == item_id:
                self._conversation.delete_item(output_id)
                del self._outputs[output_id]

    def add(
        self, content: NoteContent, *, item_id: str | None = None, is_whole: bool = False
    ) -> Item:
        """Put an item that the model does not read into the conversation.

        Raises:
            BadInputError: the conversation is full.
        """
        item = Item(
            id=item_id or new_id("item"),
            role="system",
            content=[content],
            status="completed" if is_whole else "in_progress",
        )
        self._conversation.create_item(item)
        return item

    def close(self, item: Item) -> None:
        """An item that was in progress is whole."""
        item.status = "completed"
        previous_id = self._previous.pop(item.id, None)
        self._send(ev.ItemDone(previous_item_id=previous_id, item=view_of(item)))
