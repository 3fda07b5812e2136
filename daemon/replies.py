"""One reply on the wire: the events of a response, in the order that clients rely on.

created, item added, part added, deltas, the same closed in reverse, done. What starts a reply and
what it says comes from the conversation, through `daemon.realtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TypedDict

from daemon.audio_formats import SpeechEncoder
from daemon.protocol import AudioFormatView, ItemView, ResponseParams, ServerEvent
from daemon.protocol import server_events as ev
from daemon.protocol_mcp import (
    McpArgumentsDelta,
    McpArgumentsDone,
    McpCallCompleted,
    McpCallFailed,
    McpCallInProgress,
)
from daemon.protocol_usage import (
    CachedTokenDetails,
    OutputTokenDetails,
    TokenDetails,
    UsageView,
)
from daemon.rates import RateLeft
from daemon.remote_catalogue import RemoteCatalogue
from daemon.wire_items import view_of
from pipeline import events
from pipeline.items import CallContent, Item
from pipeline.messages import Pcm16, Refusal, Usage

# What is not limited; clients expect the event after each response all the same.
UNMETERED = RateLeft(limit=1_000_000, remaining=1_000_000, reset_seconds=0.0)

# Type and code of a failed response, by what it failed by.
_FAILURES: dict[Refusal | None, tuple[str, str]] = {
    None: ("server_error", "server_error"),
    "request": ("invalid_request_error", "invalid_value"),
    "context_full": ("invalid_request_error", "context_length_exceeded"),
    "overloaded": ("rate_limit_error", "rate_limit_exceeded"),
    "tool_call": ("server_error", "invalid_tool_arguments"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyTerms:
    """What a response shows of itself besides its content; `conversation_id` None: it is beside
    the conversation, which does not hold its items.
    """

    conversation_id: str | None
    audio_format: AudioFormatView
    voice: str
    max_output_tokens: int | None
    metadata: dict[str, str] | None


class _Place(TypedDict):
    response_id: str
    item_id: str
    output_index: int
    content_index: int


class _CallPlace(TypedDict):
    response_id: str
    item_id: str
    output_index: int
    call_id: str


class _RemotePlace(TypedDict):
    response_id: str
    item_id: str
    output_index: int


def is_request(item: Item) -> bool:
    """Whether an item asks the client if a remote tool may be called."""
    shown = None if item.call is None else item.call.shown
    return shown is not None and shown["type"] == "mcp_approval_request"


class ReplyWriter:
    """Writes one response.

    Args:
        asked: what a client asked of this response, if one did.
        catalogue: the tools of MCP servers that it may call.
        sends_audio: audio goes out as events (WebSocket), not over RTP.
        rate_left: what is left of the requests of the session's key; None: they are not limited.
    """

    def __init__(
        self,
        response_id: str,
        *,
        has_audio: bool,
        sends_audio: bool,
        terms: ReplyTerms,
        send: Callable[[ServerEvent], None],
        catalogue: RemoteCatalogue,
        rate_left: Callable[[], RateLeft | None],
        asked: ResponseParams | None = None,
    ) -> None:
        self.response_id = response_id
        self.asked = asked
        self.catalogue = catalogue
        self._rate_left = rate_left
        self.item_id: str | None = None
        self._index = 0
        self._calls: dict[str, tuple[int, CallContent]] = {}
        self._output: dict[int, ItemView] = {}
        self._awaited: dict[str, str | None] = {}  # remote calls under way, and what precedes them
        self._end: events.ResponseFinished | None = None
        self._has_audio = has_audio
        self._sends_audio = sends_audio and has_audio
        self._terms = terms
        self._encoder = SpeechEncoder(terms.audio_format)
        self._send = send
        self._is_part_open = False
        self._text: list[str] = []

    def created(self) -> None:
        """`response.created`"""
        self._send(ev.ResponseCreated(response=self._view("in_progress", [])))

    def item_started(self, item: Item) -> None:
        """`response.output_item.added`; the conversation's own `ItemAdded` comes next."""
        index = len(self._calls) + (self.item_id is not None)
        if item.call is not None:
            self._calls[item.id] = (index, item.call)
        else:
            self.item_id, self._index = item.id, index
        if is_request(item):  # shown when it is whole
            return
        self._send(
            ev.OutputItemAdded(response_id=self.response_id, output_index=index, item=view_of(item))
        )

    def owns(self, item_id: str) -> bool:
        """Whether an item is one of this response, which tells its end by itself."""
        return item_id == self.item_id or item_id in self._calls

    def call_arguments(self, item_id: str, delta: str) -> None:
        """More of a tool call's arguments."""
        shown = self._calls[item_id][1].shown
        if shown is None:
            self._send(ev.CallArgumentsDelta(**self._call_place(item_id), delta=delta))
        elif shown["type"] == "mcp_call":
            self._send(McpArgumentsDelta(**self._remote_place(item_id), delta=delta))

    def call_finished(self, event: events.ResponseCallFinished) -> None:
        """Close a tool call's item."""
        item, (index, call) = view_of(event.item), self._calls[event.item.id]
        if call.shown is not None:
            self._remote_call_finished(event, item)
            return
        self._send(
            ev.CallArgumentsDone(
                **self._call_place(item.id), name=call.name, arguments=call.arguments
            )
        )
        self._close_item(index, item, event.previous_item_id)

    def _remote_call_finished(self, event: events.ResponseCallFinished, item: ItemView) -> None:
        index, is_whole = self._calls[item.id][0], event.item.status == "completed"
        previous_id = event.previous_item_id
        if is_request(event.item):
            if is_whole:
                self._send(
                    ev.OutputItemAdded(response_id=self.response_id, output_index=index, item=item)
                )
                if self._terms.conversation_id is not None:
                    self._send(ev.ItemAdded(previous_item_id=previous_id, item=item))
                self._close_item(index, item, previous_id)
            return
        place = self._remote_place(item.id)
        self._send(McpArgumentsDone(**place, arguments=item.arguments or ""))
        if is_whole:
            self._awaited[item.id] = previous_id
            self._send(McpCallInProgress(item_id=item.id, output_index=index))
        else:
            self._close_item(index, item, previous_id)

    def call_answered(self, item: Item, *, is_ok: bool) -> bool:
        """A remote tool answered, or failed; the last of them lets the response end. False: that
        had to end without it, so the end of the item is not told here.
        """
        index = self._calls[item.id][0]
        kind = McpCallCompleted if is_ok else McpCallFailed
        self._send(kind(item_id=item.id, output_index=index))
        if item.id in self._awaited:
            self._close_item(index, view_of(item), self._awaited.pop(item.id))
        else:
            return False
        if self._end is not None and not self._awaited:
            self._finish(self._end)
        return True

    def release(self, items: Iterable[Item]) -> None:
        """Another response begins: end this one, though some of its `items` have no answer yet."""
        for item in items:
            if item.id in self._awaited:
                del self._awaited[item.id]
                index = self._calls[item.id][0]
                self._output[index] = view = view_of(item)
                self._send(
                    ev.OutputItemDone(response_id=self.response_id, output_index=index, item=view)
                )
        if self._end is not None:
            self._finish(self._end)

    @property
    def has_client_calls(self) -> bool:
        """Whether the client, too, has calls to answer."""
        return any(call.shown is None for _, call in self._calls.values())

    @property
    def is_aside(self) -> bool:
        """Whether the conversation does not know of it."""
        return self._terms.conversation_id is None

    @property
    def is_held(self) -> bool:
        """Whether all that is missing to its end are answers of remote tools."""
        return self._end is not None and bool(self._awaited)

    def part_opened(self) -> None:
        """`response.content_part.added`, once."""
        if not self._is_part_open:
            self._is_part_open = True
            self._send(ev.ContentPartAdded(**self._place(), part=self._part("")))

    def text(self, delta: str) -> None:
        """More text, or transcript."""
        self.part_opened()
        self._text.append(delta)
        kind = ev.TranscriptDelta if self._has_audio else ev.TextDelta
        self._send(kind(**self._place(), delta=delta))

    def audio(self, pcm: Pcm16) -> None:
        """More speech; nothing where it goes over RTP."""
        if not self._sends_audio:
            return
        self.part_opened()
        self._send_speech(self._encoder.push(pcm))

    def _send_speech(self, pieces: list[str]) -> None:
        for delta in pieces:
            self._send(ev.AudioDelta(**self._place(), delta=delta))

    def finished(self, event: events.ResponseFinished) -> None:
        """Close what is open, then `response.done`, always, once remote calls are answered."""
        if event.item is not None and self.item_id is not None:
            self._close_part()
            self._close_item(self._index, view_of(event.item), event.previous_item_id)
        self._end = event
        if not self._awaited:
            self._finish(event)

    def _finish(self, event: events.ResponseFinished) -> None:
        self._end = None
        output = [self._output[index] for index in sorted(self._output)]
        self._send(ev.ResponseDone(response=self._view(event.status, output, event)))
        requests = self._rate_left() or UNMETERED
        limits = [
            ev.RateLimit(name="requests", **asdict(requests)),
            ev.RateLimit(name="tokens", **asdict(UNMETERED)),
        ]
        self._send(ev.RateLimitsUpdated(rate_limits=limits))

    def _close_part(self) -> None:
        if not self._is_part_open:
            return
        place, text = self._place(), "".join(self._text)
        if self._has_audio:
            self._send_speech(self._encoder.flush())
            self._send(ev.AudioDone(**place))
            self._send(ev.TranscriptDone(**place, transcript=text))
        else:
            self._send(ev.TextDone(**place, text=text))
        self._send(ev.ContentPartDone(**place, part=self._part(text)))

    def _close_item(self, index: int, item: ItemView, previous_item_id: str | None) -> None:
        self._output[index] = item
        self._send(ev.OutputItemDone(response_id=self.response_id, output_index=index, item=item))
        if self._terms.conversation_id is not None:
            self._send(ev.ItemDone(previous_item_id=previous_item_id, item=item))

    def _place(self) -> _Place:
        assert self.item_id is not None, self.response_id
        return {
            "response_id": self.response_id,
            "item_id": self.item_id,
            "output_index": self._index,
            "content_index": 0,
        }

    def _call_place(self, item_id: str) -> _CallPlace:
        index, call = self._calls[item_id]
        return {
            "response_id": self.response_id,
            "item_id": item_id,
            "output_index": index,
            "call_id": call.call_id,
        }

    def _remote_place(self, item_id: str) -> _RemotePlace:
        index, _ = self._calls[item_id]
        return {"response_id": self.response_id, "item_id": item_id, "output_index": index}

    def _part(self, text: str) -> ev.ContentPart:
        if self._has_audio:
            return ev.ContentPart(type="audio", transcript=text)
        return ev.ContentPart(type="text", text=text)

    def _view(
        self, status: str, output: list[ItemView], event: events.ResponseFinished | None = None
    ) -> ev.ResponseView:
        terms = self._terms
        return ev.ResponseView.model_validate(
            {
                "id": self.response_id,
                "status": status,
                "status_details": event and _details(event),
                "output": output,
                "conversation_id": terms.conversation_id,
                "output_modalities": ["audio" if self._has_audio else "text"],
                "max_output_tokens": terms.max_output_tokens or "inf",
                "audio": {"output": {"format": terms.audio_format, "voice": terms.voice}},
                "usage": event and _usage(event.usage),
                "metadata": terms.metadata,
            }
        )


def _details(event: events.ResponseFinished) -> ev.StatusDetails | None:
    if event.status == "completed":
        return None
    error = None
    if event.status == "failed":
        kind, code = _FAILURES[event.refusal]
        message = event.error or "The reply failed."
        error = ev.StatusError(type=kind, code=code, message=message)
    return ev.StatusDetails(type=event.status, reason=event.reason, error=error)


def _usage(usage: Usage) -> UsageView:
    num_input = usage.input_text_tokens + usage.input_audio_tokens + usage.input_image_tokens
    num_cached_media = usage.cached_audio_tokens + usage.cached_image_tokens
    num_output = usage.output_text_tokens + usage.output_audio_tokens
    return UsageView(
        total_tokens=num_input + num_output,
        input_tokens=num_input,
        output_tokens=num_output,
        input_token_details=TokenDetails(
            text_tokens=usage.input_text_tokens,
            audio_tokens=usage.input_audio_tokens,
            image_tokens=usage.input_image_tokens,
            cached_tokens=usage.cached_tokens,
            cached_tokens_details=CachedTokenDetails(
                text_tokens=usage.cached_tokens - num_cached_media,
                audio_tokens=usage.cached_audio_tokens,
                image_tokens=usage.cached_image_tokens,
            ),
        ),
        output_token_details=OutputTokenDetails(
            text_tokens=usage.output_text_tokens, audio_tokens=usage.output_audio_tokens
        ),
    )
