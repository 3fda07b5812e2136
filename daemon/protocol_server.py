"""Server events, in the protocol's exact shapes (see `ServerModel` for absent and null)."""

from __future__ import annotations

from typing import Literal

from daemon.protocol_audio import AudioFormatView
from daemon.protocol_base import ServerEvent, ServerModel
from daemon.protocol_items import ItemView
from daemon.protocol_session import SessionView, TranscriptionSessionView
from daemon.protocol_usage import UsageView


class ErrorBody(ServerModel):
    """What went wrong; `event_id` is the client event that caused it."""

    type: str
    code: str | None
    message: str
    param: str | None
    event_id: str | None


class ErrorEvent(ServerEvent):
    """A failure; the session goes on unless the connection closes."""

    type: Literal["error"] = "error"
    error: ErrorBody


class SessionCreated(ServerEvent):
    """The first event of a connection."""

    type: Literal["session.created"] = "session.created"
    session: SessionView | TranscriptionSessionView
    x_resume_token: str | None = None


class SessionUpdated(ServerEvent):
    """The full configuration after a change."""

    type: Literal["session.updated"] = "session.updated"
    session: SessionView | TranscriptionSessionView


# ------------------------------------------------------------------------------- items
class ItemAdded(ServerEvent):
    """An item entered the conversation."""

    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None
    item: ItemView


class ItemDone(ServerEvent):
    """An item is final."""

    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None
    item: ItemView


class ItemRetrieved(ServerEvent):
    """An item with its audio."""

    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: ItemView


class ItemTruncated(ServerEvent):
    """A spoken reply was cut to what was heard."""

    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


class ItemDeleted(ServerEvent):
    """An item was taken out."""

    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


# ------------------------------------------------------------------------------- input buffer
class SpeechStarted(ServerEvent):
    """The user began to speak."""

    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(ServerEvent):
    """The user's turn is over."""

    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


class Committed(ServerEvent):
    """The input buffer became an item."""

    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


class TimeoutTriggered(ServerEvent):
    """The user did not answer a reply."""

    type: Literal["input_audio_buffer.timeout_triggered"] = "input_audio_buffer.timeout_triggered"
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class Cleared(ServerEvent):
    """The input buffer was emptied."""

    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


# ------------------------------------------------------------------------------- responses
class StatusError(ServerModel):
    """Why a response failed."""

    type: str
    code: str
    message: str


class StatusDetails(ServerModel):
    """Why a response is not completed."""

    type: Literal["cancelled", "incomplete", "failed"]
    reason: Literal["turn_detected", "client_cancelled", "max_output_tokens"] | None = None
    error: StatusError | None = None


class ResponseOutput(ServerModel):
    """`response.audio.output`"""

    format: AudioFormatView
    voice: str


class ResponseAudioView(ServerModel):
    """`response.audio`"""

    output: ResponseOutput


class ResponseView(ServerModel):
    """A response."""

    object: Literal["realtime.response"] = "realtime.response"
    id: str
    status: Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
    status_details: StatusDetails | None
    output: list[ItemView]
    conversation_id: str | None
    output_modalities: list[str]
    max_output_tokens: int | str
    audio: ResponseAudioView
    usage: UsageView | None
    metadata: dict[str, str] | None


class ResponseCreated(ServerEvent):
    """A response began."""

    type: Literal["response.created"] = "response.created"
    response: ResponseView


class ResponseDone(ServerEvent):
    """A response is over; always sent, once."""

    type: Literal["response.done"] = "response.done"
    response: ResponseView


class OutputItemAdded(ServerEvent):
    """A response's item begins."""

    type: Literal["response.output_item.added"] = "response.output_item.added"
    response_id: str
    output_index: int
    item: ItemView


class OutputItemDone(ServerEvent):
    """A response's item ends."""

    type: Literal["response.output_item.done"] = "response.output_item.done"
    response_id: str
    output_index: int
    item: ItemView


class ContentPart(ServerModel):
    """A part as `response.content_part.*` shows it (other names than in items)."""

    type: Literal["text", "audio"]
    text: str | None = None
    transcript: str | None = None


class _OfPart(ServerEvent):
    """Where in a response an event belongs."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int


class ContentPartAdded(_OfPart):
    """A part begins."""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: ContentPart


class ContentPartDone(_OfPart):
    """A part ends."""

    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: ContentPart


class TextDelta(_OfPart):
    """More text."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str


class TextDone(_OfPart):
    """All the text."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str


class AudioDelta(_OfPart):
    """More speech, base64."""

    type: Literal["response.output_audio.delta"] = "response.output_audio.delta"
    delta: str


class AudioDone(_OfPart):
    """No more speech."""

    type: Literal["response.output_audio.done"] = "response.output_audio.done"


class TranscriptDelta(_OfPart):
    """More of what is spoken, as text."""

    type: Literal["response.output_audio_transcript.delta"] = (
        "response.output_audio_transcript.delta"
    )
    delta: str


class TranscriptDone(_OfPart):
    """All of what is spoken, as text."""

    type: Literal["response.output_audio_transcript.done"] = "response.output_audio_transcript.done"
    transcript: str


class _OfCall(ServerEvent):
    """Where in a response a tool call belongs."""

    response_id: str
    item_id: str
    output_index: int
    call_id: str


class CallArgumentsDelta(_OfCall):
    """More of the arguments of a tool call."""

    type: Literal["response.function_call_arguments.delta"] = (
        "response.function_call_arguments.delta"
    )
    delta: str


class CallArgumentsDone(_OfCall):
    """All arguments of a tool call."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str


class RateLimit(ServerModel):
    """One limit."""

    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitsUpdated(ServerEvent):
    """Sent after each response."""

    type: Literal["rate_limits.updated"] = "rate_limits.updated"
    rate_limits: list[RateLimit]


# ------------------------------------------------------------------------------- WebRTC playout
class OutputAudioStarted(ServerEvent):
    """Playout of a response began."""

    type: Literal["output_audio_buffer.started"] = "output_audio_buffer.started"
    response_id: str


class OutputAudioStopped(ServerEvent):
    """A response was played to its end."""

    type: Literal["output_audio_buffer.stopped"] = "output_audio_buffer.stopped"
    response_id: str


class OutputAudioCleared(ServerEvent):
    """Playout of a response was cut."""

    type: Literal["output_audio_buffer.cleared"] = "output_audio_buffer.cleared"
    response_id: str


# ------------------------------------------------------------------------------- extensions
class StagesView(ServerModel):
    """Milliseconds from the end of speech (`turn_end`), and from the start of the response (the
    others).
    """

    turn_end: float | None
    encoder_tail: float | None
    prefill: float | None
    first_text: float | None
    first_codec: float | None
    first_pcm: float | None


class Metrics(ServerEvent):
    """Extension: where the time of a turn went."""

    type: Literal["x.metrics"] = "x.metrics"
    response_id: str
    stages_ms: StagesView
    first_audio_ms: float | None
    prefill_tokens_left: int
    num_underruns: int


class TurnState(ServerEvent):
    """Extension: what the session does now."""

    type: Literal["x.turn.state"] = "x.turn.state"
    state: str


class OutputDoubt(ServerEvent):
    """Extension: somebody makes a sound over the reply, which may be nothing to stop for. Who plays
    it makes it softer ("duck"), silent with its place kept ("hold"), or lets it go on ("resume").
    """

    type: Literal["x.output.doubt"] = "x.output.doubt"
    doubt: str
