"""The items of a conversation, free of any wire format: what was said, by whom, and what was heard
of it.

The list that keeps their order is `pipeline.history`; how an item looks on a wire is the adapter's
affair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.messages import Frame, Pcm, Pcm16, Rgb, Role

ItemStatus = Literal["in_progress", "completed", "incomplete"]


@dataclass(slots=True, kw_only=True)
class TextContent:
    """Text that was typed, or written as a text reply."""

    text: str


@dataclass(slots=True, kw_only=True)
class ImageContent:
    """A picture; `data_uri` is how it came, for retrieval."""

    rgb: Rgb
    data_uri: str
    detail: str = "auto"


@dataclass(slots=True, kw_only=True)
class SpeechContent:
    """What a user said: 16 kHz samples and the camera frames seen meanwhile."""

    pcm: Pcm
    frames: tuple[Frame, ...] = ()
    transcript: str | None = None


@dataclass(slots=True, kw_only=True)
class VoiceContent:
    """What the model said: its text so far (after an interruption: the text heard) and its samples
    at 24 kHz.
    """

    transcript: str = ""
    pcm: list[Pcm16] = field(default_factory=list)

    @property
    def num_samples(self) -> int:
        """Samples at 24 kHz."""
        return sum(len(chunk) for chunk in self.pcm)


@dataclass(slots=True, kw_only=True)
class CallContent:
    """A call of a tool, alone in an item of the assistant; `arguments` is the text of a JSON object
    (so far). `shown`: what the adapter shows in its place, where the call is not the client's.
    """

    name: str
    call_id: str
    arguments: str = ""
    shown: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class OutputContent:
    """What a tool answered to a call, alone in an item of the user. `is_hidden`: the adapter shows
    it as a part of the call.
    """

    call_id: str
    output: str
    is_hidden: bool = False


@dataclass(slots=True, kw_only=True)
class NoteContent:
    """Something that clients see in the conversation and the model does not, alone in an item;
    `shown` is its form for the adapter.
    """

    shown: dict[str, Any]


Content = (
    TextContent
    | ImageContent
    | SpeechContent
    | VoiceContent
    | CallContent
    | OutputContent
    | NoteContent
)


@dataclass(slots=True, kw_only=True)
class Item:
    """One message of the conversation, or a call of a tool, or its answer."""

    id: str
    role: Role
    content: list[Content]
    status: ItemStatus = "completed"

    @property
    def call(self) -> CallContent | None:
        """Its call of a tool, where it is one."""
        content = self.content[0] if self.content else None
        return content if isinstance(content, CallContent) else None

    @property
    def note(self) -> NoteContent | None:
        """What only clients see, where it is such a thing."""
        content = self.content[0] if self.content else None
        return content if isinstance(content, NoteContent) else None

    @property
    def output(self) -> OutputContent | None:
        """Its answer of a tool, where it is one."""
        content = self.content[0] if self.content else None
        return content if isinstance(content, OutputContent) else None
