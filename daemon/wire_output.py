"""What is played over WebRTC, as wire events."""

from __future__ import annotations

from typing import assert_never

from daemon.protocol import ServerEvent
from daemon.protocol import server_events as ev
from pipeline import events


def output_event(
    event: events.OutputStarted | events.OutputStopped | events.OutputCleared,
) -> ServerEvent:
    """The event of a client for one of the paced output."""
    match event:
        case events.OutputStarted():
            return ev.OutputAudioStarted(response_id=event.response_id)
        case events.OutputStopped():
            return ev.OutputAudioStopped(response_id=event.response_id)
        case events.OutputCleared():
            return ev.OutputAudioCleared(response_id=event.response_id)
        case _:
            assert_never(event)
