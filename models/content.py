"""What goes into the engine and what comes out of it: plain values without tensors or transport.

`pipeline.worker` translates its own messages into these; `omnid ask` builds them directly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.errors import Refusal

Role = Literal["system", "user", "assistant"]
ToolChoice = Literal["auto", "none", "required"]
EndStatus = Literal["completed", "cancelled", "incomplete", "failed"]

Pcm = npt.NDArray[np.float32]  # [num_samples] at 16 kHz, mono, -1..1
Pcm16 = npt.NDArray[np.int16]  # [num_samples] at 24 kHz, mono
Rgb = npt.NDArray[np.uint8]  # [height, width, 3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text inside a message."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A still picture inside a user's message."""

    rgb: Rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """Finished speech inside a user's message; `frames` are (seconds from its first sample,
    picture) in order.
    """

    pcm: Pcm
    frames: tuple[tuple[float, Rgb], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool inside an assistant's message; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool answered, inside a user's message (that is where the template puts it)."""

    output: str


Part = Text | Image | Audio | ToolCall | ToolResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One complete message of a conversation."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyOptions:
    """How one reply is made. None means: as the checkpoint's generation config says.

    `tool_choice`: whether the reply may, must not, or must call a tool; `forced_tool` is the one
    that it must. `stop`: texts before which the reply ends. `script`: the reply says exactly this;
    nothing is sampled but its voice.
    """

    audio: bool = True
    tool_choice: ToolChoice = "auto"
    forced_tool: str | None = None
    max_tokens: int | None = None
    greedy: bool = False
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    script: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one reply's context by kind, how many of them were cached (all, and of sound and of
    pictures), and tokens and frames made.
    """

    input_text_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    cached_tokens: int = 0
    cached_audio_tokens: int = 0
    cached_image_tokens: int = 0
    output_text_tokens: int = 0
    output_audio_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Stages:
    """Milliseconds from `respond` to the end of each stage; None where it did not happen (yet).

    `tokens_left`: still to be prefilled at `respond`. `late_frames`: came after the listener had
    nothing left to play.
    """

    encoder_tail: float | None = None
    prefill: float | None = None
    first_text: float | None = None
    first_codec: float | None = None
    first_pcm: float | None = None
    tokens_left: int = 0
    late_frames: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEvent:
    """More visible text of a reply, and the token ids sampled for it."""

    response: int
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioEvent:
    """One codec frame: its codes, its samples, and the estimated characters spoken by its end."""

    response: int
    codes: tuple[int, ...]
    pcm: Pcm16
    spoken_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """More of a tool call: its number in the reply, its name, the next piece of its arguments."""

    response: int
    index: int
    name: str
    arguments: str
    is_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndEvent:
    """The last event of a reply. `refusal`: what it failed by (see `models.errors`)."""

    response: int
    status: EndStatus
    usage: Usage = field(default_factory=Usage)
    stages: Stages = field(default_factory=Stages)
    error: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultEvent:
    """Background work of a context failed; the context was put back to where it last was whole."""

    context: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The words that are heard in a clip, by an encoder that writes words.

    Attributes:
        num_words, unknown_share, ends_unknown: how many; how many of them are no
            words of the model's; whether the last one is none.
        end_after_N: log chance that a sentence ends behind its last N words; seen_N: log of how
            often those are said; ended_before_N: the same without the last word; end: all in one.
        likely_...: log chances of the last word, of all, of the least likely one, behind those
            before. sure_...: how sure the encoder is of the last word, of all, of the surest.
        tokens_since: tokens behind the last word; tokens_of_last: how long that one is written.
        tail_sound, sound, sound_most: chance of no blank: mean of the last tokens, sum, greatest.
    """

    num_words: float
    unknown_share: float
    ends_unknown: float
    end_after_1: float
    end_after_2: float
    end_after_3: float
    seen_1: float
    seen_2: float
    seen_3: float
    ended_before_1: float
    ended_before_2: float
    end: float
    likely_last: float
    likely_mean: float
    likely_least: float
    sure_last: float
    sure_mean: float
    sure_most: float
    tokens_since: float
    tokens_of_last: float
    tail_sound: float
    sound: float
    sound_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingEvent:
    """What a clip that a context was asked about says; `query`: which question it answers."""

    context: int
    query: int
    reading: Reading


EngineEvent = TextEvent | AudioEvent | CallEvent | EndEvent | FaultEvent | ReadingEvent
