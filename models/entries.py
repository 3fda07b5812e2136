"""The appends of one context: complete messages, speech that may still be open, and replies.

An entry knows the pieces that encoding has made of it so far and where they were placed. It holds
what is needed to place it again elsewhere, never a cache. Encoding is `models.encoding`; placing is
`models.context`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.chat import ChatFormat
from models.content import Audio, Image, Message, Pcm, Rgb, Text, ToolCall, ToolResult
from models.errors import RequestError
from models.layout import Layout
from models.pieces import Piece
from models.qwen3_omni.mel import MelState, MelStream, num_final_frames
from models.stretches import stretch_of

_PARTS_OF = {"user": Text | Image | Audio | ToolResult, "assistant": Text | ToolCall}


@dataclass(slots=True, kw_only=True)
class Placement:
    """Where an entry lies: the log's length and both positions before it, and how many pieces are
    in.
    """

    start: int
    next: float
    talker_next: float
    base: float
    talker_base: float
    num_pieces: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One append. `is_complete`: no more pieces will come (unless it is cut or edited)."""

    layout: Layout
    pieces: list[Piece] = field(default_factory=list)
    placement: Placement | None = None
    is_complete: bool = False

    @property
    def num_tokens(self) -> int:
        return sum(len(piece) for piece in self.pieces)


@dataclass(slots=True, kw_only=True, eq=False)
class MessageEntry(Entry):
    """A message that is known whole.

    Attributes:
        waiting_text: what is still to be encoded of the part, or run of texts, before the next.
        is_rendered: of that: special tokens in it count.
        is_preface: what precedes the log, which the template renders whole.
    """

    message: Message
    num_parts_encoded: int = 0
    waiting_text: str = ""
    is_rendered: bool = False
    is_preface: bool = False


@dataclass(slots=True, kw_only=True)
class WindowMark:
    """What is needed to take back an encoded window of open speech."""

    num_pieces: int
    num_frames: int
    layout: Layout
    mel: MelState
    num_grids: int


@dataclass(slots=True, kw_only=True, eq=False)
class SpeechEntry(Entry):
    """A spoken message, open until `is_closed`; audio is encoded window by window as it comes.

    Attributes:
        has_camera: camera frames may come (fixed at the start).
        is_interleaved: some had come when the first window was encoded; else it is a plain clip.
        mel: the log-mel stream of the windows encoded so far; None before the first.
        marks: one before each encoded window, the first one before window 0.
        num_grids: camera grids encoded so far.
    """

    has_camera: bool
    is_interleaved: bool = False
    frames: list[tuple[float, Rgb]] = field(default_factory=list)
    is_closed: bool = False
    mel: MelStream | None = None
    marks: list[WindowMark] = field(default_factory=list)
    num_grids: int = 0
    _buffer: Pcm = field(default_factory=lambda: np.zeros(16_000, np.float32))
    num_samples: int = 0

    @property
    def pcm(self) -> Pcm:
        """All samples so far, 16 kHz (a view: valid until the next append)."""
        return self._buffer[: self.num_samples]

    @property
    def num_windows(self) -> int:
        """Windows encoded so far."""
        return len(self.marks)

    def num_final_windows(self, window_frames: int, num_samples: int | None = None) -> int:
        """Whole attention windows of `window_frames` mel frames that no later sample can change."""
        samples = self.num_samples if num_samples is None else num_samples
        return num_final_frames(samples) // window_frames

    def append(self, pcm: Pcm) -> None:
        """Take more samples."""
        stop = self.num_samples + len(pcm)
        if stop > len(self._buffer):
            grown = np.zeros(max(stop, 2 * len(self._buffer)), np.float32)
            grown[: self.num_samples] = self.pcm
            self._buffer = grown
        self._buffer[self.num_samples : stop] = pcm
        self.num_samples = stop

    def cut(self, num_samples: int, num_frames: int, num_windows: int) -> None:
        """Take back what came after these counts and reopen.

        At most `num_windows` windows stay: those that were encoded without a later frame.
        """
        self.num_samples = num_samples
        del self.frames[num_frames:]
        self.is_closed = self.is_complete = False
        num_windows = sum(mark.num_frames <= num_frames for mark in self.marks[:num_windows])
        if num_windows < len(self.marks):
            mark = self.marks[num_windows]
            del self.marks[num_windows:]
            del self.pieces[mark.num_pieces :]
            self.layout, self.num_grids = replace(mark.layout), mark.num_grids
            if self.mel is not None:
                self.mel.restore(mark.mel)

    def void(self) -> None:
        """Count as nothing: it could not be encoded or placed."""
        self.layout = Layout(in_talker=True)
        self.mel, self.num_grids = None, 0
        self.marks.clear()
        self.is_closed = True


@dataclass(slots=True, kw_only=True, eq=False)
class ReplyEntry(Entry):
    """An assistant's turn: the header, then one piece for each token sampled.

    `num_kept` None keeps all; otherwise only so many reply tokens stay (0: not even the header).
    """

    response: int
    num_kept: int | None = None

    def kept_pieces(self) -> list[Piece]:
        """What lies in the log: header and tokens, as far as they were heard."""
        if self.num_kept is None:
            return self.pieces
        return self.pieces[: 1 + self.num_kept] if self.num_kept else []


def message_entry(message: Message) -> MessageEntry:
    """An entry for a message.

    Raises:
        RequestError: its role can not hold one of its parts.
    """
    allowed = _PARTS_OF.get(message.role, Text)
    if not all(isinstance(part, allowed) for part in message.parts):
        raise RequestError(f"a message of role {message.role!r} can not hold such a part")
    return MessageEntry(layout=Layout(in_talker=message.role == "user"), message=message)


def system_entry(
    chat: ChatFormat, instructions: str, tools: Sequence[Mapping[str, Any]]
) -> MessageEntry | None:
    """What precedes the log, as the chat template has it; None: nothing."""
    rendered = chat.system_text(instructions, tools)
    if not rendered:
        return None
    shown = (instructions, *(json.dumps(tool) for tool in tools))
    entry = MessageEntry(
        layout=Layout(in_talker=False),
        message=Message(role="system", parts=tuple(Text(text=text) for text in shown)),
        num_parts_encoded=len(shown),
        is_rendered=True,
        is_preface=True,
    )
    if stretch_of(rendered) < len(rendered):
        entry.waiting_text = rendered
        return entry
    entry.pieces.append(entry.layout.text(chat.encode_rendered(rendered)))
    entry.is_complete = True
    return entry
