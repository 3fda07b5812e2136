"""The conversation as a list of items.

Their order, and what of them an engine is told when it starts anew.

Bound: media (sound, camera frames, pictures) share one byte budget. Where it is exceeded, the
oldest items lose their camera frames first, then the oldest lose their sound and pictures, too.
Such an item stays in the list with its text; an engine that is rebuilt gets a placeholder instead
of what is gone. The newest item is never touched.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np

from pipeline.errors import BadInputError
from pipeline.items import (
    CallContent,
    Content,
    ImageContent,
    Item,
    NoteContent,
    OutputContent,
    SpeechContent,
    TextContent,
    VoiceContent,
)
from pipeline.messages import (
    AudioPart,
    ImagePart,
    Message,
    Part,
    Pcm,
    Rgb,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

MAX_MEDIA_BYTES = 96 * 2**20
MAX_ITEMS = 4096
ROOT = "root"

LOST_SPEECH = "[The user said something here whose sound is no longer stored.]"
LOST_IMAGE = "[A picture was here that is no longer stored.]"


@dataclass(slots=True, kw_only=True)
class Entry:
    """An item and what the engine was given with it.

    `still`: the camera picture that a typed turn took along; `is_forgotten`: it has left the
    model's context, which was full.
    """

    item: Item
    still: Rgb | None = None
    is_forgotten: bool = False


@dataclass(slots=True)
class History:
    """See the module's docstring."""

    max_media_bytes: int = MAX_MEDIA_BYTES
    _entries: list[Entry] = field(default_factory=list)

    def __iter__(self) -> Iterator[Item]:
        return (entry.item for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def remembered(self) -> list[Entry]:
        """What is in the model's context, or shall be."""
        return [entry for entry in self._entries if not entry.is_forgotten]

    @property
    def tail_id(self) -> str | None:
        """The last item's id."""
        return self._entries[-1].item.id if self._entries else None

    def get(self, item_id: str) -> Item | None:
        """The item, or None."""
        return next((item for item in self if item.id == item_id), None)

    def previous_id(self, item_id: str) -> str | None:
        """The id of the item before this one.

        None for the first, and for one that was taken out.
        """
        if self.get(item_id) is None:
            return None
        index = self._index(item_id)
        return self._entries[index - 1].item.id if index else None

    def append(self, item: Item, *, still: Rgb | None = None) -> str | None:
        """Put an item last; returns its predecessor's id."""
        return self.insert(item, after_id=None, still=still)

    def insert(self, item: Item, *, after_id: str | None, still: Rgb | None = None) -> str | None:
        """Insert an item; `after_id`: None appends, "root" puts first.

        Returns its predecessor's id.

        Raises:
            BadInputError: the predecessor is unknown, or the id of the item or of its call is
                taken.
        """
        if self.get(item.id) is not None:
            raise BadInputError(
                f"Error adding item: an item with the id '{item.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        if item.call is not None and self._has_call(item.call.call_id):
            raise BadInputError(
                f"Error adding item: a tool call with the id '{item.call.call_id}' already exists.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )
        index = self._place_after(after_id)
        self._entries.insert(index, Entry(item=item, still=still))
        self.trim()
        return self._entries[index - 1].item.id if index else None

    def delete(self, item_id: str) -> None:
        """Take an item out.

        Raises:
            BadInputError: there is no such item.
        """
        if self.get(item_id) is None:
            raise BadInputError(
                f"Error deleting item: the item with the id '{item_id}' does not exist.",
                code="item_delete_invalid_item_id",
                param="item_id",
            )
        del self._entries[self._index(item_id)]

    def check_call(self, call_id: str) -> None:
        """Whether there is a call of a tool with this id.

        Raises:
            BadInputError: there is none.
        """
        if not self._has_call(call_id):
            raise BadInputError(
                f"No tool call with the id '{call_id}' was found in the conversation.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )

    def _has_call(self, call_id: str) -> bool:
        return any(item.call is not None and item.call.call_id == call_id for item in self)

    def check_room(self, item: Item, *, max_chars: int) -> None:
        """Whether one more item may be created by hand: text is never dropped, so it is bounded.

        Raises:
            BadInputError: there are too many items, or too much text in them.
        """
        total = sum(map(num_chars, self)) + num_chars(item)
        if len(self) >= MAX_ITEMS or total > max_chars:
            raise BadInputError(
                f"The conversation is full: it holds at most {MAX_ITEMS} items and"
                f" {max_chars} characters. Delete some items first.",
                code="conversation_full",
                param="item",
            )

    def messages(self) -> tuple[Message, ...]:
        """What an engine is told to know the whole conversation.

        Items still in progress are left out.
        """
        made = (to_message(entry.item, still=entry.still) for entry in self.remembered)
        return joined(message for message in made if message is not None)

    # ------------------------------------------------------------------ memory
    def trim(self) -> None:
        """Bring the media back under the budget, oldest first (see the module's docstring)."""
        excess = sum(map(_media_bytes, self._entries)) - self.max_media_bytes
        for drop in (_drop_frames, _drop_media):
            for entry in self._entries[:-1]:
                if excess <= 0:
                    return
                before = _media_bytes(entry)
                drop(entry)
                excess -= before - _media_bytes(entry)

    # ------------------------------------------------------------------ parts
    def _index(self, item_id: str) -> int:
        return next(i for i, entry in enumerate(self._entries) if entry.item.id == item_id)

    def _place_after(self, after_id: str | None) -> int:
        if after_id is None:
            return len(self._entries)
        if after_id == ROOT:
            return 0
        if self.get(after_id) is None:
            raise BadInputError(
                f"Error adding item: the previous item with the id '{after_id}' does not exist.",
                code="item_not_found",
                param="previous_item_id",
            )
        return self._index(after_id) + 1


def new_id(prefix: str) -> str:
    """A fresh id, at most 32 characters: `new_id("item")` -> "item_4f…"."""
    return f"{prefix}_{secrets.token_hex(12)}"


def to_message(item: Item, *, still: Rgb | None = None) -> Message | None:
    """The engine's form of an item.

    None where there is nothing (yet) that the model should remember.
    """
    if item.status == "in_progress" or (item.call is not None and item.status != "completed"):
        return None
    parts: list[Part] = [] if still is None else [ImagePart(rgb=still)]
    parts += [part for content in item.content if (part := _to_part(content)) is not None]
    return Message(role=item.role, parts=tuple(parts)) if parts else None


def to_messages(items: Iterable[Item]) -> tuple[Message, ...]:
    """What an engine is told to know these items."""
    return joined(message for item in items if (message := to_message(item)) is not None)


def joined(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Calls as part of the turn that made them, results of parallel calls in one turn.

    That is how a chat template writes them.
    """
    found: list[Message] = []
    for message in messages:
        if found and _belong_together(found[-1], message):
            message = Message(role=message.role, parts=found.pop().parts + message.parts)
        found.append(message)
    return tuple(found)


def _belong_together(first: Message, second: Message) -> bool:
    kinds = {type(part) for part in second.parts}
    if first.role == second.role == "assistant":
        return kinds == {ToolCallPart}
    return kinds == {ToolResultPart} == {type(part) for part in first.parts}


def _to_part(content: Content) -> Part | None:
    match content:
        case TextContent():
            return TextPart(text=content.text) if content.text else None
        case ImageContent():
            return ImagePart(rgb=content.rgb)
        case SpeechContent():
            if not len(content.pcm):
                return TextPart(text=content.transcript or LOST_SPEECH)
            return AudioPart(pcm=content.pcm, frames=content.frames)
        case VoiceContent():
            return TextPart(text=content.transcript) if content.transcript else None
        case CallContent():
            return ToolCallPart(name=content.name, arguments=content.arguments)
        case OutputContent():
            return ToolResultPart(output=content.output)
        case NoteContent():
            return None
        case _:
            assert_never(content)


def _media_bytes(entry: Entry) -> int:
    still = 0 if entry.still is None else entry.still.nbytes
    return still + sum(map(_content_bytes, entry.item.content))


def _content_bytes(content: Content) -> int:
    match content:
        case TextContent() | CallContent() | OutputContent() | NoteContent():
            return 0
        case ImageContent():
            return content.rgb.nbytes + len(content.data_uri)
        case SpeechContent():
            frames = {id(frame.rgb): frame.rgb.nbytes for frame in content.frames}
            return content.pcm.nbytes + sum(frames.values())  # a slow camera's frames repeat
        case VoiceContent():
            return sum(chunk.nbytes for chunk in content.pcm)
        case _:
            assert_never(content)


def _drop_frames(entry: Entry) -> None:
    for content in entry.item.content:
        if isinstance(content, SpeechContent):
            content.frames = ()


def _drop_media(entry: Entry) -> None:
    entry.still = None
    entry.item.content = [_without_media(content) for content in entry.item.content]


def _without_media(content: Content) -> Content:
    match content:
        case TextContent() | CallContent() | OutputContent() | NoteContent():
            return content
        case ImageContent():
            return TextContent(text=LOST_IMAGE)
        case SpeechContent():
            return SpeechContent(pcm=_no_sound(), transcript=content.transcript)
        case VoiceContent():
            return VoiceContent(transcript=content.transcript)
        case _:
            assert_never(content)


def _no_sound() -> Pcm:
    return np.zeros(0, np.float32)


def num_chars(item: Item) -> int:
    """Characters of all its texts, also of those that only clients see."""
    return sum(map(_content_chars, item.content))


def _content_chars(content: Content) -> int:
    match content:
        case TextContent():
            return len(content.text)
        case SpeechContent() | VoiceContent():
            return len(content.transcript or "")
        case CallContent():
            return len(content.name) + len(content.arguments)
        case OutputContent():
            return len(content.output)
        case NoteContent():
            return len(json.dumps(content.shown))
        case ImageContent():
            return 0
        case _:
            assert_never(content)
