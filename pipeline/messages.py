"""Plain data that crosses the engine port: what is said to an engine and what it answers.

Only ids, strings, numbers and numpy arrays, so that the same session code drives an engine in a
thread, in a child process or on another machine. How a message becomes bytes is `pipeline.framing`;
who sends it is `pipeline.engine_client`; who receives it is `pipeline.worker`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.reading import Overheard as Overheard
from pipeline.reading import Reading as Reading

ENGINE_INPUT_HZ = 16_000
ENGINE_OUTPUT_HZ = 24_000

# Spelt out: framing reads these types, and numpy's NDArray is another kind of alias on Python 3.12.
Pcm = np.ndarray[tuple[Any, ...], np.dtype[np.float32]]  # [num_samples], mono, -1..1
Pcm16 = np.ndarray[tuple[Any, ...], np.dtype[np.int16]]  # [num_samples], mono
Rgb = np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]  # [height, width, 3]

Role = Literal["system", "user", "assistant"]
ToolChoice = Literal["auto", "none", "required"]
ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]
Refusal = Literal["request", "context_full", "overloaded", "tool_call"]


# ----------------------------------------------------------------------------- content of messages
@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Text of a message."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """A still picture."""

    rgb: Rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A camera frame; `time_s` counts from the first sample of the speech that it accompanies
    (never negative).
    """

    rgb: Rgb
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPart:
    """Finished speech at 16 kHz, with the camera frames that were seen meanwhile (in order of
    time).
    """

    pcm: Pcm
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallPart:
    """A call of a tool; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResultPart:
    """What a tool answered."""

    output: str


Part = TextPart | ImagePart | AudioPart | ToolCallPart | ToolResultPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One complete message of a conversation. Only a user's message may hold pictures, audio and
    results of tools, only an assistant's calls.
    """

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseOptions:
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


# ------------------------------------------------------------------------------- calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Start a context with what precedes its log; `tools` are JSON texts, one for each function."""

    context: int
    instructions: str
    voice: str | None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Replace instructions, voice and tools; the log behind them is rebuilt in the background."""

    context: int
    instructions: str
    voice: str | None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendMessage:
    """Append a whole message."""

    context: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginSpeech:
    """Open a spoken user message. `has_camera` fixes whether frames will be interleaved with the
    audio.
    """

    context: int
    has_camera: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendAudio:
    """More samples of the open spoken message, 16 kHz."""

    context: int
    pcm: Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendFrame:
    """A camera frame of the open spoken message."""

    context: int
    frame: Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSpeech:
    """Close the open spoken message."""

    context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMark:
    """Name the present end of the log of appends."""

    context: int
    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Cut the log back to a mark, as if nothing had been appended since."""

    context: int
    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Replace the whole log by these messages."""

    context: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Start a reply to what has been appended."""

    context: int
    response: int
    options: ResponseOptions
    speculative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """Release a speculative reply. Idempotent."""

    response: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stop a reply; of an unconfirmed one, also take it out of the log. Idempotent."""

    response: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Keep in the log what `num_samples` (24 kHz) of the reply had spoken; legal after later
    appends too.
    """

    response: int
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhear:
    """Read the words of a sound that does not become part of the log; see `Overheard`."""

    context: int
    query: int
    pcm: Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Free a context and all that belongs to it."""

    context: int


LogCall = AppendMessage | BeginSpeech | AppendAudio | AppendFrame | EndSpeech | SetMark | Rollback
ReplyCall = Respond | Confirm | Cancel | Heard
Call = Open | Configure | LogCall | Rebuild | ReplyCall | Overhear | Close


# ------------------------------------------------------------------------------- answers
@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one reply: of its context, how many of those were cached, and of its output."""

    input_text_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    cached_tokens: int = 0
    cached_audio_tokens: int = 0
    cached_image_tokens: int = 0
    output_text_tokens: int = 0
    output_audio_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Milliseconds from `respond` to the end of each stage inside the engine; None where it did not
    happen.

    `tokens_left` is how many tokens were still to be prefilled when `respond` arrived;
    `late_frames` how many frames of speech came after the listener had nothing left to play.
    """

    encoder_tail: float | None = None
    prefill: float | None = None
    first_text: float | None = None
    first_codec: float | None = None
    first_pcm: float | None = None
    tokens_left: int = 0
    late_frames: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More visible text of a reply."""

    response: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioDelta:
    """One codec frame of speech at 24 kHz.

    `spoken_chars` is the estimated number of characters of the reply's text spoken by the end of
    this frame (the talker reads text ahead of the voice).
    """

    response: int
    pcm: Pcm16
    spoken_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """More of a tool call of a reply: which one, its name, the next piece of its arguments.

    All pieces joined are the text of a JSON object once `is_done`.
    """

    response: int
    index: int
    name: str
    arguments: str
    is_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseEnded:
    """The last event of a reply. `error` is a message for people where `status` is "failed";
    `refusal`: what it failed by: that which was asked for, a full context, too many sessions, a
    tool call of the model's that is none; None: by nothing, or the engine is to blame.
    """

    response: int
    status: ResponseStatus
    usage: Usage
    stages: Stages
    error: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardText:
    """Answer to `Heard`: the reply's text that stays in the log."""

    response: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextFault:
    """A call on this context could not be carried out, and left it as it was.

    `is_lost`: it could not be opened now, because others are served late, or not be kept (no memory
    left, a bug): the engine has freed it, open a new one and rebuild. `refusal`: what it failed by.
    """

    context: int
    error: str
    is_lost: bool = False
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReady:
    """First message of an engine: what it serves."""

    checkpoint: str
    voices: tuple[str, ...]
    device: str
    dtype: str
    is_babbling: bool
    max_context_tokens: int
    reads_words: bool = False  # whether it answers `Overhear`


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFailed:
    """The engine could not be loaded, or died: `error` says why, on one line. Always the last
    message.

    `can_retry` is False where a new start would end the same way: the checkpoint or the machine is
    not right.
    """

    error: str
    can_retry: bool = True


ResponseEvent = TextDelta | AudioDelta | ToolCallDelta | ResponseEnded
Answer = ResponseEvent | HeardText | Overheard | ContextFault | EngineReady | EngineFailed
