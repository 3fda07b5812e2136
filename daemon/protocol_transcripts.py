"""Server events about what the user said, as text."""

from __future__ import annotations

from typing import Literal

from daemon.protocol_base import ServerEvent, ServerModel


class TranscriptInput(ServerModel):
    """Input tokens of a transcript by kind."""

    text_tokens: int
    audio_tokens: int


class TranscriptUsage(ServerModel):
    """Tokens of a transcript."""

    type: Literal["tokens"] = "tokens"
    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: TranscriptInput


class InputTranscriptDelta(ServerEvent):
    """More of what the user said."""

    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: int = 0
    delta: str


class InputTranscriptCompleted(ServerEvent):
    """All that the user said in an item."""

    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: int = 0
    transcript: str
    usage: TranscriptUsage


class TranscriptError(ServerModel):
    """Why there is no transcript."""

    type: str
    code: str
    message: str


class InputTranscriptFailed(ServerEvent):
    """There will be no transcript of an item."""

    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: int = 0
    error: TranscriptError
