"""Transcripts of the user's speech on the wire."""

from __future__ import annotations

from typing import assert_never

from daemon import protocol_transcripts as ev
from daemon.protocol import ServerEvent
from pipeline import events
from pipeline.messages import Usage

TranscriptEvent = events.TranscriptDelta | events.TranscriptDone | events.TranscriptFailed


def transcript_event(event: TranscriptEvent) -> ServerEvent:
    """The wire's form."""
    match event:
        case events.TranscriptDelta():
            return ev.InputTranscriptDelta(item_id=event.item_id, delta=event.text)
        case events.TranscriptDone():
            return ev.InputTranscriptCompleted(
                item_id=event.item_id, transcript=event.text, usage=_usage(event.usage)
            )
        case events.TranscriptFailed():
            error = ev.TranscriptError(
                type="server_error", code="transcription_failed", message=event.error
            )
            return ev.InputTranscriptFailed(item_id=event.item_id, error=error)
        case _:
            assert_never(event)


def _usage(usage: Usage) -> ev.TranscriptUsage:
    num_input = usage.input_text_tokens + usage.input_audio_tokens
    return ev.TranscriptUsage(
        total_tokens=num_input + usage.output_text_tokens,
        input_tokens=num_input,
        output_tokens=usage.output_text_tokens,
        input_token_details=ev.TranscriptInput(
            text_tokens=usage.input_text_tokens, audio_tokens=usage.input_audio_tokens
        ),
    )
