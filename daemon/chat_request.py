"""The body of `/v1/chat/completions`, as clients of OpenAI and of Qwen's own examples write it.

Shapes only: what a message means to the engine is `daemon.chat_messages`. What would change the
answer and is not served is refused; what is meant for other servers is left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from daemon.http_bodies import RestModel
from daemon.protocol_base import not_supported, wrong_value
from daemon.protocol_tools import MAX_TOOLS, ForcedTool, FunctionChoice, FunctionTool

MAX_MESSAGES = 2_000
MAX_STOPS = 4
MAX_STOP_CHARS = 200
STREAMED_FORMATS = ("pcm16", "pcm", "wav")

AudioFormat = Literal["wav", "mp3", "flac", "opus", "aac", "pcm16", "pcm"]


def _url(value: Any) -> Any:
    """Some clients write the address where others write an object around it."""
    return {"url": value} if isinstance(value, str) else value


class MediaUrl(RestModel):
    """Where a picture, a sound or a film is: a `data:` URL, or an address."""

    url: str = Field(min_length=1)


class InputAudio(RestModel):
    """A recording as base64 (some clients put a `data:` URL there)."""

    data: str = Field(min_length=1)
    format: str | None = Field(default=None, max_length=40)


Url = Annotated[MediaUrl, BeforeValidator(_url, json_schema_input_type=MediaUrl | str)]


class ContentPart(RestModel):
    """A part of a message; the field that has the name of its type holds it."""

    type: Literal["text", "refusal", "image_url", "input_audio", "audio_url", "video_url", "video"]
    text: str | None = None
    refusal: str | None = None
    image_url: Url | None = None
    input_audio: InputAudio | None = None
    audio_url: Url | None = None
    video_url: Url | None = None
    video: list[str] | None = Field(default=None, min_length=1, max_length=512)

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> ContentPart:
        if getattr(self, self.type) is None:
            raise wrong_value("a part of type '{type}' needs '{type}'", type=self.type)
        return self


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Content = Annotated[
    list[ContentPart] | None,
    BeforeValidator(_parts, json_schema_input_type=list[ContentPart] | str | None),
]


class CalledFunction(RestModel):
    """Which function was called, and with what: the text of a JSON object."""

    name: str = Field(min_length=1, max_length=64)
    arguments: str


class ToolCall(RestModel):
    """A call that the assistant made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AudioReference(RestModel):
    """A spoken answer of before, by its id."""

    id: str


class ChatMessage(RestModel):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None
    audio: AudioReference | None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> ChatMessage:
        if self.role == "tool" and self.tool_call_id is None:
            raise wrong_value("a message of a tool needs 'tool_call_id'")
        if self.role != "assistant" and not self.content:
            raise wrong_value("a message of role '{role}' needs 'content'", role=self.role)
        if self.role != "user" and any(
            part.type not in ("text", "refusal") for part in self.content or ()
        ):
            raise wrong_value("only a user's message may hold more than text")
        return self


class ChatFunction(FunctionTool):
    """A function of the client's, as chat writes it: inside an object."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function"] = "function"


class ChatTool(RestModel):
    """A tool."""

    type: Literal["function"]
    function: ChatFunction


def _flat(value: Any) -> Any:
    """The function of a tool choice stands in an object of its own."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        return {"type": value.get("type"), "name": value["function"].get("name")}
    return value


class AudioOptions(RestModel):
    """How the answer shall sound. `voice`: a voice of the checkpoint, or an alias of one."""

    voice: str = Field(default="default", max_length=100)
    format: AudioFormat = "wav"


class StreamOptions(RestModel):
    """What a stream holds besides."""

    include_usage: bool = False


def _one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if value not in (None, {"type": "text"}):
        raise not_supported("answers in a given format are")
    return None


def _off(value: Any) -> Any:
    if value not in (None, False, 0, {}):
        raise not_supported("this is")
    return None


Unserved = Annotated[Any, BeforeValidator(_off)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class ChatRequest(RestModel):
    """The whole body. `n` is 1; without `max_completion_tokens` the checkpoint's limit holds."""

    model: str = Field(default="", max_length=300)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    modalities: list[Literal["text", "audio"]] | None = Field(default=None, min_length=1)
    audio: AudioOptions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ChatTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Annotated[
        FunctionChoice | None,
        BeforeValidator(_flat, json_schema_input_type=str | dict[str, Any] | None),
    ] = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Stop] | None, BeforeValidator(_one, json_schema_input_type=list[Stop] | str | None)
    ] = Field(default=None, max_length=MAX_STOPS)
    n: int | None = Field(default=None, ge=1, le=1)
    response_format: Annotated[Any, BeforeValidator(_plain)] = None
    logprobs: Unserved = None
    top_logprobs: Unserved = None
    logit_bias: Unserved = None
    frequency_penalty: Unserved = None
    presence_penalty: Unserved = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if (
            self.is_streamed
            and self.has_audio
            and self.voice_options.format not in STREAMED_FORMATS
        ):
            raise wrong_value("streamed audio has the format 'pcm16'")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise wrong_value("two tools have the same name")
        if isinstance(self.tool_choice, ForcedTool) and self.tool_choice.name not in names:
            raise wrong_value("there is no tool '{name}'", name=self.tool_choice.name[:64])
        if self.tool_choice == "required" and not names:
            raise wrong_value("a tool must be called, and there is none")
        return self

    @property
    def is_streamed(self) -> bool:
        return bool(self.stream)

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def has_audio(self) -> bool:
        """Whether the answer is spoken, too."""
        return "audio" in (self.modalities or ())

    @property
    def voice_options(self) -> AudioOptions:
        return self.audio or AudioOptions()

    @property
    def choice(self) -> str | ForcedTool:
        """Whether the answer may, must not, or must call a tool."""
        return (self.tool_choice or "auto") if self.tools else "none"
