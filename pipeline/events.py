"""What a conversation tells its owner: session events, free of any wire format, in the order they
happen.

`pipeline.conversation.Conversation` calls `emit(event)` for each; a wire adapter
(`daemon.realtime`) turns them into its protocol's events. All `*_ms` values are integers on the
session's input clock unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.items import Item
from pipeline.messages import Pcm16, Refusal, ResponseStatus, Stages, Usage

Doubt = Literal["duck", "hold", "resume"]
CancelReason = Literal["turn_detected", "client_cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted:
    """Speech was detected; `audio_start_ms` includes the prefix padding; `item_id` will be the user
    item's id.
    """

    item_id: str
    audio_start_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStopped:
    """The turn's silence was long enough; `audio_end_ms` is the end of the audio handed to the
    model.
    """

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutTriggered:
    """The user did not answer a reply for long: what was heard of that silence becomes an item."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The input buffer became an item (its `ItemAdded` and `ItemDone` follow)."""

    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The input buffer was emptied on request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemAdded:
    """An item entered the conversation; a reply's item enters empty and in progress."""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDone:
    """An item is final."""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDeleted:
    """An item left the conversation on request."""

    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTruncated:
    """A reply was cut to what was heard; `audio_end_ms` counts from the item's first sample."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStarted:
    """A reply was begun. `has_audio` is False for a text reply; `is_aside`: it is none of the
    conversation, which will not hold its items.
    """

    response_id: str
    has_audio: bool
    is_aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseItemStarted:
    """An item of the reply exists: what it says or writes, or a tool call. Its `ItemAdded` comes
    right after.
    """

    response_id: str
    item: Item


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseText:
    """More text of the reply (a transcript where it has audio)."""

    response_id: str
    item_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAudio:
    """More speech of the reply, 24 kHz; need not be sent where a paced output plays it."""

    response_id: str
    item_id: str
    pcm: Pcm16


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCallDelta:
    """More of the arguments of a tool call that the reply makes."""

    response_id: str
    item_id: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCallFinished:
    """A tool call is final: whole, or broken off (its item is then incomplete)."""

    response_id: str
    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFinished:
    """The reply is over, exactly once for each `ResponseStarted`; `item` is what it said or wrote,
    None if that was nothing. Its tool calls have been told before. `refusal`: see
    `pipeline.messages.ResponseEnded`.
    """

    response_id: str
    item: Item | None
    previous_item_id: str | None
    status: ResponseStatus
    reason: CancelReason | Literal["max_output_tokens"] | None
    usage: Usage
    error: str | None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptDelta:
    """More of what the user said in an item, as text."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptDone:
    """All of what the user said in an item."""

    item_id: str
    text: str
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptFailed:
    """There will be no text of what the user said in an item."""

    item_id: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStarted:
    """A paced output began to play the reply."""

    response_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStopped:
    """A paced output has played the reply to its end."""

    response_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCleared:
    """A paced output was cut; exactly one of `OutputStopped` and `OutputCleared` follows each
    `OutputStarted`.
    """

    response_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDoubted:
    """Somebody makes a sound over a reply that its listener plays by himself: it shall be softer
    ("duck"), silent with its place kept ("hold"), or go on ("resume"). What cuts it tells itself.
    """

    doubt: Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnMetrics:
    """Where the milliseconds of one turn went, from the true end of speech (None: no such moment).

    `turn_end_ms`: until the turn detector said so; `engine`: the engine's stages, each counted from
    `respond`; `first_audio_ms`: until the first reply audio was handed to the transport.
    """

    response_id: str
    turn_end_ms: float | None
    engine: Stages
    first_audio_ms: float | None
    num_underruns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculated:
    """What became of a reply that was begun before the turn was surely over; where it was in vain,
    how many tokens it had made.
    """

    is_kept: bool
    text_tokens: int
    audio_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """What the session does now, for people to see."""

    state: Literal["listening", "hearing", "thinking", "speaking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Something asynchronous went wrong that belongs to no reply; the session goes on."""

    message: str
    code: str


SessionEvent = (
    SpeechStarted
    | SpeechStopped
    | TimeoutTriggered
    | Committed
    | Cleared
    | ItemAdded
    | ItemDone
    | ItemDeleted
    | ItemTruncated
    | ResponseStarted
    | ResponseItemStarted
    | ResponseText
    | ResponseAudio
    | ResponseCallDelta
    | ResponseCallFinished
    | ResponseFinished
    | TranscriptDelta
    | TranscriptDone
    | TranscriptFailed
    | OutputStarted
    | OutputStopped
    | OutputCleared
    | OutputDoubted
    | TurnMetrics
    | Speculated
    | StateChanged
    | Failed
)

Emit = Callable[[SessionEvent], None]
