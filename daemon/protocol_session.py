"""The session object: what a client may change of it, and how a server shows it.

A patch keeps which fields were present (`model_fields_set`): only those change. What the protocol
allows and this server does not serve yet is refused by the field. `reasoning` and
`parallel_tool_calls` are checked and ignored: the model does not reason, and calls as it likes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from daemon.protocol_audio import AudioFormat, AudioFormatView
from daemon.protocol_base import ClientModel, ServerModel, not_supported, wrong_value
from daemon.protocol_tools import ToolChoice, Tools

MAX_OUTPUT_TOKENS = 4096
MAX_TRACING_CHARS = 16_384
MAX_REDUCTION_STRENGTH = 10  # of noise, where no more is left to turn down long before
MAX_MODEL_CHARS = 256
MAX_WORDS = 256  # that may help a transcript, and languages


# ------------------------------------------------------------------------------- single values
def _check_off(what: str) -> Any:
    def check(value: Any) -> Any:
        if value:
            raise not_supported(what)
        return None

    return BeforeValidator(check)


def _check_tokens(value: Any) -> Any:
    if value in (None, "inf"):
        return value
    if type(value) is not int:
        raise wrong_value("should be an integer or 'inf'")
    if value < 1:
        raise PydanticCustomError("greater_than_equal", "should be at least 1")
    if value > MAX_OUTPUT_TOKENS:
        raise PydanticCustomError("less_than_equal", "should be at most 4096, or 'inf'")
    return value


class TokenLimits(ClientModel):
    """`truncation.token_limits`"""

    post_instructions: int | None = Field(default=None, ge=1)


class RetentionRatio(ClientModel):
    """`truncation` by how much stays."""

    type: Literal["retention_ratio"]
    retention_ratio: float = Field(ge=0, le=1)
    token_limits: TokenLimits | None = None


def _check_truncation(value: Any) -> Any:
    if isinstance(value, dict):
        return RetentionRatio.model_validate(value)
    if value not in (None, "auto", "disabled"):
        raise wrong_value("should be 'auto', 'disabled', or an object of type 'retention_ratio'")
    return value


def _check_modalities(value: Any) -> Any:
    if value not in (["audio"], ["text"]):
        raise wrong_value("should be ['audio'] or ['text']")
    return value


def _check_voice(value: Any) -> Any:
    """A name; `{id}` is the same as its id."""
    if isinstance(value, dict) and list(value) == ["id"]:
        value = value["id"]
    if not isinstance(value, str) or not value:
        raise wrong_value("should be the name of a voice")
    return value


Modalities = Annotated[list[str], BeforeValidator(_check_modalities)]
MaxTokens = Annotated[int | str | None, BeforeValidator(_check_tokens)]
Truncation = Annotated[str | RetentionRatio, BeforeValidator(_check_truncation)]
Voice = Annotated[str, BeforeValidator(_check_voice)]
Speed = Annotated[float, Field(ge=0.25, le=1.5)]
Prompt = Annotated[None, _check_off("Stored prompts are")]
Include = Annotated[None, _check_off("Log probabilities are")]


Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


class Reasoning(ClientModel):
    """`reasoning`"""

    effort: Effort | None = None


class SamplingPatch(ClientModel):
    """Extension: how replies are drawn; what is null is as the checkpoint wants it. With 0 as
    temperature or `top_p` the likeliest is always taken.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


# ------------------------------------------------------------------------------- turn detection
class ServerVad(ClientModel):
    """Turns end by silence."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float | None = Field(default=None, ge=0, le=1)
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=5_000)
    silence_duration_ms: int | None = Field(default=None, ge=20, le=10_000)
    idle_timeout_ms: int | None = Field(default=None, ge=5_000, le=30_000)
    create_response: bool | None = None
    interrupt_response: bool | None = None


class SemanticVad(ClientModel):
    """Turns end by how they sound; how long doubt may last follows from the eagerness."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class _AnyVad(ClientModel):
    type: Literal["server_vad", "semantic_vad"]


def _parse_detection(value: Any) -> Any:
    """Either kind by its name; one without a name is plain."""
    kind = value.get("type", "server_vad") if isinstance(value, dict) else "server_vad"
    is_semantic = _AnyVad.model_validate({"type": kind}).type == "semantic_vad"
    return (SemanticVad if is_semantic else ServerVad).model_validate(value)


TurnDetection = Annotated[ServerVad | SemanticVad, BeforeValidator(_parse_detection)]


# ------------------------------------------------------------------------------ what a client sends
Words = Annotated[list[Annotated[str, Field(min_length=1)]] | None, Field(max_length=MAX_WORDS)]


class TranscriptionPatch(ClientModel):
    """The model itself transcribes, whatever recogniser is named; what helps it is told to it. A
    delay is taken and shown, and changes nothing: each begins as soon as its turn is over.
    """

    model: str | None = None
    language: str | None = None
    languages: Words = None
    prompt: str | None = None
    keywords: Words = None
    delay: Effort | None = None


class NoiseReductionPatch(ClientModel):
    """Steady noise is taken out of the input. A strength that it does not name stays as it is, or
    becomes 1 where there was none.
    """

    type: Literal["near_field", "far_field"]
    strength: float | None = Field(default=None, ge=0, le=MAX_REDUCTION_STRENGTH)


class InputPatch(ClientModel):
    """`session.audio.input`"""

    format: AudioFormat | None = None
    transcription: TranscriptionPatch | None = None
    noise_reduction: NoiseReductionPatch | None = None
    turn_detection: TurnDetection | None = None


class OutputPatch(ClientModel):
    """`session.audio.output`"""

    format: AudioFormat | None = None
    voice: Voice | None = None
    speed: Speed | None = None


class AudioPatch(ClientModel):
    """`session.audio`"""

    input: InputPatch | None = None
    output: OutputPatch | None = None


class Tracing(ClientModel):
    """Labels of a trace; taken and shown, nothing is sent anywhere."""

    workflow_name: str | None = None
    group_id: str | None = None
    metadata: Any = None


def _check_tracing(value: Any) -> Any:
    if isinstance(value, dict):
        Tracing.model_validate(value)
        if len(json.dumps(value)) > MAX_TRACING_CHARS:
            raise wrong_value("should have at most {most} characters", most=MAX_TRACING_CHARS)
    elif value not in (None, "auto"):
        raise wrong_value("should be 'auto', an object, or null")
    return value


SessionType = Literal["realtime", "transcription"]

_OF_TRANSCRIPTION = ("type", "object", "id", "expires_at", "x_ext", "model", "audio", "include")


class SessionPatch(ClientModel):
    """The `session` of `session.update`, of a WebRTC call, or of a secret. Read-only fields are
    taken and ignored. A session that only transcribes has an input, and little else.
    """

    type: SessionType
    object: str | None = None
    id: str | None = None
    expires_at: int | None = None
    x_ext: list[str] | None = None
    model: str | None = Field(default=None, max_length=MAX_MODEL_CHARS)
    output_modalities: Modalities | None = None
    instructions: str | None = None
    prompt: Prompt = None
    tools: Tools = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: MaxTokens = None
    tracing: Annotated[Any, BeforeValidator(_check_tracing)] = None
    truncation: Truncation | None = None
    include: Include = None
    audio: AudioPatch | None = None
    x_sampling: SamplingPatch | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_transcription(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") == "transcription":
            places: list[tuple[str, ...]] = [
                (name,) for name in data if name not in _OF_TRANSCRIPTION
            ]
            audio = data.get("audio")
            if isinstance(audio, dict) and audio.get("output") is not None:
                places.append(("audio", "output"))
            if places:
                raise ValidationError.from_exception_data(
                    "session",
                    [InitErrorDetails(type="extra_forbidden", loc=at, input=None) for at in places],
                )
        return data


# ------------------------------------------------------------------------------- what a server show
class TurnDetectionView(ServerModel):
    """Turn detection in effect."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    idle_timeout_ms: int | None
    create_response: bool
    interrupt_response: bool


class TranscriptionView(ServerModel):
    """Transcription in effect. Some clients know no more than the first three keys: the others are
    there where they were asked for.
    """

    model: str
    language: str | None = None
    prompt: str | None = None
    languages: list[str] | None = None
    keywords: list[str] | None = None
    delay: Effort | None = None


class NoiseReductionView(ServerModel):
    """Noise reduction in effect."""

    type: Literal["near_field", "far_field"]
    strength: float


class SemanticDetectionView(ServerModel):
    """The same by meaning."""

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: str
    create_response: bool
    interrupt_response: bool


class InputView(ServerModel):
    """Input in effect."""

    format: AudioFormatView
    transcription: TranscriptionView | None
    noise_reduction: NoiseReductionView | None
    turn_detection: TurnDetectionView | SemanticDetectionView | None


class OutputView(ServerModel):
    """Output in effect."""

    format: AudioFormatView
    voice: str
    speed: float


class AudioView(ServerModel):
    """Both directions."""

    input: InputView
    output: OutputView


class SessionView(ServerModel):
    """The full effective session, as `session.created` and `session.updated` show it."""

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    output_modalities: list[str]
    instructions: str
    tools: list[Any]
    tool_choice: Any
    max_output_tokens: int | str
    tracing: Any
    truncation: Any
    prompt: None
    expires_at: int
    audio: AudioView
    include: None
    x_ext: list[str] | None = None
    x_sampling: dict[str, Any] | None = None


class TranscriptionAudioView(ServerModel):
    """The one direction of a session that only transcribes."""

    input: InputView


class TranscriptionSessionView(ServerModel):
    """The full effective session where it only transcribes."""

    type: Literal["transcription"] = "transcription"
    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str
    expires_at: int
    audio: TranscriptionAudioView
    include: None
    x_ext: list[str] | None = None
