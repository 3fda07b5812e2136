"""Events that are too long for the channel that has to carry them.

Some clients take no WebSocket message over 1 MiB, a data channel none over 256 KiB; the settings
`max_event_bytes` of both transports say how long an event may be. What a client asks for and would
have to be told back by a longer one is refused before anything of it is applied. What the server
makes itself is told in several events where it is a part of a text, and else without the texts of
its items, whose parts have been told.
"""

from __future__ import annotations

from daemon.protocol import ItemView, ProtocolError, ServerEvent
from daemon.protocol import server_events as ev
from daemon.protocol_base import new_event_id
from daemon.protocol_mcp import McpArgumentsDelta
from daemon.protocol_transcripts import InputTranscriptDelta

MAX_CHAR_BYTES = 6  # of JSON: a control character
ENVELOPE_BYTES = 1_024  # of an event with a part of a text: all but the text
_Delta = (
    ev.TextDelta
    | ev.TranscriptDelta
    | ev.CallArgumentsDelta
    | McpArgumentsDelta
    | InputTranscriptDelta
)


def in_pieces(event: ServerEvent, max_bytes: int) -> list[ServerEvent]:
    """The event; or, where it is a part of a text and too long, several that are smaller parts."""
    if not isinstance(event, _Delta):
        return [event]
    num_chars = max(1, (max_bytes - ENVELOPE_BYTES) // MAX_CHAR_BYTES)
    if len(event.delta) <= num_chars or fits(event, max_bytes):
        return [event]
    return [
        event.model_copy(
            update={"delta": event.delta[start : start + num_chars], "event_id": new_event_id()}
        )
        for start in range(0, len(event.delta), num_chars)
    ]


def fits(event: ServerEvent, max_bytes: int) -> bool:
    """Whether an event is short enough."""
    return num_bytes(event.to_json()) <= max_bytes


def num_bytes(text: str) -> int:
    """Bytes of a text on the wire."""
    return len(text) if text.isascii() else len(text.encode())


def check_told(event: ServerEvent, max_bytes: int, *, param: str) -> None:
    """Whether what an event would tell back is short enough; `param` names it.

    Raises:
        ProtocolError: it is not.
    """
    if not fits(event, max_bytes):
        raise ProtocolError(
            f"This is too long: an event that shows it may have {max_bytes} bytes here.",
            code="event_too_long",
            param=param,
        )


def without_texts(event: ServerEvent) -> ServerEvent:
    """A shorter form of an event that tells of items, another event itself."""
    match event:
        case ev.ItemAdded() | ev.ItemDone() | ev.OutputItemAdded() | ev.OutputItemDone():
            return event.model_copy(update={"item": _bare(event.item)})
        case ev.ResponseDone():
            output = [_bare(item) for item in event.response.output]
            response = event.response.model_copy(update={"output": output})
            return event.model_copy(update={"response": response})
        case _:
            return event


def _bare(item: ItemView) -> ItemView:
    """The item with empty fields in place of its texts."""
    empty = {"content": [], "arguments": "", "output": "", "tools": []}
    return item.model_copy(
        update={key: value for key, value in empty.items() if getattr(item, key) is not None}
    )
