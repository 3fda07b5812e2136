"""The Realtime dialect of one session: client events become calls of the conversation, session
events become server events.

Knows no socket: text comes in by `handle`, typed events go out by `send`. Whatever a client sends,
it gets its answer or exactly one error, and the session goes on. How responses are begun and
written is `daemon.responses`; what the session object holds is `daemon.wire_session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Protocol, assert_never

from daemon import protocol as wire
from daemon.metrics import Metrics
from daemon.protocol import ProtocolError, ServerEvent
from daemon.protocol import server_events as ev
from daemon.rates import RateLeft
from daemon.remote_catalogue import RemoteCatalogue
from daemon.remote_tools import RemoteTools
from daemon.replies import is_request
from daemon.responses import Responses
from daemon.settings import LimitSettings
from daemon.told import check_told, fits, in_pieces
from daemon.turn_metrics import metrics_event
from daemon.wire_input import WireInput
from daemon.wire_items import Media, item_from_wire, view_of
from daemon.wire_output import output_event
from daemon.wire_session import Moment, Voices, WireSession
from daemon.wire_transcripts import transcript_event
from pipeline import events
from pipeline.conversation import Conversation
from pipeline.errors import BadInputError
from pipeline.events import Emit, SessionEvent
from pipeline.session_config import SessionConfig

log = logging.getLogger(__name__)

EXTENSIONS = (
    "x.metrics",
    "x.turn.state",
    "x.output.doubt",
    "x_sampling",
    "input_image_buffer.append",
    "video",
    "resume",
)
MAX_ITEM_ID_CHARS = 32
MAX_LOGGED_REFUSALS = 20  # of a session; those that follow are counted, and told at "debug"


Send = Callable[[ServerEvent], None]


class OpenConversation(Protocol):
    """Makes the conversation of a session; it does not run yet."""

    def __call__(self, config: SessionConfig, emit: Emit) -> Conversation: ...


class RealtimeSession:
    """One client's session.

    Args:
        send: takes each server event at once; must not block or raise.
        is_paced: the daemon plays (WebRTC): audio goes over RTP and not as events.
        max_event_bytes: no server event may be longer: what would have to be told back by such a
            one is refused, and audio is left out of a retrieved item.
    """

    def __init__(
        self,
        session: WireSession,
        *,
        send: Send,
        open_conversation: OpenConversation,
        voices: Voices,
        limits: LimitSettings,
        metrics: Metrics,
        is_paced: bool,
        max_event_bytes: int,
        rate_left: Callable[[], RateLeft | None],
    ) -> None:
        self.session = session
        self._listeners = [send]
        self._turn = asyncio.Lock()
        self._voices = voices
        self._limits = limits
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes
        self._num_refusals = 0
        self._waiting: wire.ResponseParams | None = None  # for servers to list their tools
        self.conversation = open_conversation(session.config(), self._on_event)
        self.input = WireInput(self.conversation, limits)
        self.remote_tools = RemoteTools(
            session.mcp,
            self.conversation,
            send=self._send,
            refuse=lambda message, code: self.refuse(message, code, kind="server_error"),
            on_listed=lambda: self._adopt(self.session),
            go_on=self._go_on,
        )
        self.remote_tools.declare(session.tools)
        self._responses = Responses(
            self.conversation,
            self.remote_tools,
            session=lambda: self.session,
            send=self._send,
            voices=voices,
            limits=limits,
            metrics=metrics,
            is_paced=is_paced,
            rate_left=rate_left,
        )

    def start(self, *, resume_token: str | None = None) -> None:
        """Say `session.created`: the first event of a connection. The token is an extension."""
        view = self.session.view()
        self._send(ev.SessionCreated(session=view, x_resume_token=resume_token))
        self.remote_tools.ask()

    @property
    def num_joined(self) -> int:
        """Channels beside the client's own."""
        return len(self._listeners) - 1

    @contextlib.contextmanager
    def joined(self, listener: Send) -> Iterator[None]:
        """Let another channel take part: it hears what the client hears, from `session.created`
        on.
        """
        listener(ev.SessionCreated(session=self.session.view()))
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def handle(self, data: str | bytes, *, sender: Send | None = None) -> None:
        """Obey one message, or answer its sender (the client, or a channel that joined) with one
        error. Waits while the session is behind, or obeys somebody else.
        """
        sender = sender or self._listeners[0]
        async with self._turn, self._refusing(None, sender):
            event = wire.parse_client_event(data)
            async with self._refusing(event.event_id, sender):
                await self._obey(event, sender)

    @contextlib.asynccontextmanager
    async def _refusing(self, event_id: str | None, sender: Send) -> AsyncIterator[None]:
        """Answer what can not be done with one error; `event_id`: of the event that asks for it."""
        try:
            yield
        except ProtocolError as error:
            event_id = error.event_id or event_id
            self.refuse(error.message, error.code, error.param, event_id=event_id, to=sender)
        except BadInputError as error:
            self.refuse(str(error), error.code, error.param, event_id=event_id, to=sender)

    def _send(self, event: ServerEvent) -> None:
        for piece in in_pieces(event, self._max_event_bytes):
            for listener in self._listeners:
                listener(piece)

    def refuse(
        self,
        message: str,
        code: str,
        param: str | None = None,
        *,
        event_id: str | None = None,
        kind: str = "invalid_request_error",
        to: Send | None = None,
    ) -> None:
        """Send one error; the session goes on. `to`: whom alone it concerns."""
        self._metrics.errors.labels(code).inc()
        self._num_refusals += 1
        level = logging.INFO if self._num_refusals <= MAX_LOGGED_REFUSALS else logging.DEBUG
        log.log(level, "refused code=%s param=%s number=%d", code, param, self._num_refusals)
        body = ev.ErrorBody(type=kind, code=code, message=message, param=param, event_id=event_id)
        (to or self._send)(ev.ErrorEvent(error=body))

    # ------------------------------------------------------------------ from the client
    async def _obey(self, event: wire.ClientEvent, sender: Send) -> None:
        conversation = self.conversation
        match event:
            case wire.InputAudioAppend():
                await self.input.append_audio(event.audio, self.session.input_format)
            case wire.InputImageAppend():
                self._check_extension("input_image_buffer.append")
                await self.input.append_image(event.image)
            case wire.InputAudioCommit():
                self.input.commit()
            case wire.InputAudioClear():
                self.input.clear()
            case wire.SessionUpdate():
                self._update(event.session)
            case wire.ItemCreate():
                if event.item.type == "mcp_approval_response":
                    self.remote_tools.answer(event.item)
                    return
                audio_format = self.session.input_format
                item = await asyncio.to_thread(
                    item_from_wire, event.item, self._limits, audio_format
                )
                added = ev.ItemAdded(item=view_of(item), previous_item_id=event.previous_item_id)
                check_told(added, self._max_event_bytes, param="item")
                conversation.create_item(item, previous_item_id=event.previous_item_id)
            case wire.ItemRetrieve():
                self._retrieve(event.item_id)
            case wire.ItemTruncate():
                conversation.truncate_item(event.item_id, audio_end_ms=event.audio_end_ms)
            case wire.ItemDelete():
                conversation.delete_item(event.item_id)
                self.remote_tools.items.deleted(event.item_id)
            case wire.ResponseCreate():
                asked = event.response or wire.ResponseParams()
                await self._respond(asked, event.event_id, sender)
            case wire.ResponseCancel():
                self._cancel(event.response_id)
            case wire.OutputAudioClear():
                conversation.clear_output()
            case _:
                raise AssertionError(f"no way to obey {event.type}")

    def _check_extension(self, name: str) -> None:
        if name not in self.session.x_ext:
            raise ProtocolError(f"'{name}' is an extension: connect with ?x-ext=1.", param="type")

    def _update(self, patch: wire.SessionPatch) -> None:
        moment = Moment(
            has_spoken=self.conversation.has_spoken,
            has_input=not self.input.is_empty,
            is_replying=self.conversation.is_replying,
        )
        changed = self.session.patched(patch, self._voices, moment)
        updated = ev.SessionUpdated(session=changed.view())
        check_told(updated, self._max_event_bytes, param="session")
        self.remote_tools.declare(changed.tools)
        self._adopt(changed)
        self._send(updated)
        self.remote_tools.ask()

    def _adopt(self, changed: WireSession) -> None:
        changed = replace(changed, remote=self.remote_tools.functions)
        if changed.config() != self.session.config():
            self.conversation.configure(changed.config())
        self.session = changed

    def _retrieve(self, item_id: str) -> None:
        item = self.conversation.get_item(item_id)
        if item is None:
            shown = item_id[:MAX_ITEM_ID_CHARS]
            raise ProtocolError(
                f"Error retrieving item: the item with id '{shown}' does not exist.",
                code="item_retrieve_invalid_item_id",
                param="item_id",
            )
        room = self._max_event_bytes
        media = Media(
            input_format=self.session.input_format,
            output_format=self.session.output_format,
            max_chars=room,
        )
        retrieved = ev.ItemRetrieved(item=view_of(item, media=media))
        if not fits(retrieved, room):
            retrieved = ev.ItemRetrieved(item=view_of(item))
        self._send(retrieved)

    async def _respond(
        self, asked: wire.ResponseParams, event_id: str | None, sender: Send
    ) -> None:
        """Begin a response, at once, or when MCP servers that it alone names have listed."""
        if self.session.type == "transcription":
            raise ProtocolError("A transcription session has no responses.", param="type")
        if asked.tools is None:
            await self._responses.create(asked, self.remote_tools.catalogue)
            return
        catalogue = self.remote_tools.of_response(asked.tools)
        if not (servers := catalogue.unasked()):
            await self._responses.create(asked, catalogue)
            return
        if self._waiting is not None:
            raise ProtocolError(
                "Another response waits for MCP servers to list their tools.", param="response"
            )
        self._waiting = asked

        async def begin() -> None:
            async with self._turn, self._refusing(event_id, sender):
                if self._waiting is not asked:
                    raise ProtocolError("The response was cancelled.", code="response_cancelled")
                self._waiting = None
                await self._responses.create(asked, catalogue)

        self.remote_tools.list_first(servers, catalogue, begin)

    def _cancel(self, response_id: str | None) -> None:
        if response_id is None and self._waiting is not None:
            self._waiting = None
        elif not self.remote_tools.cancel(response_id):
            self.conversation.cancel_response(response_id)

    async def _go_on(self, asked: wire.ResponseParams, catalogue: RemoteCatalogue) -> None:
        """Remote tools answered: the next response follows, unless one is being made already, or
        the user speaks, to whom the answers will be known then.
        """
        async with self._turn:
            if not (self.conversation.is_replying or self.conversation.has_open_input):
                await self._responses.create(asked, catalogue)

    # ------------------------------------------------------------------ from the conversation
    def _on_event(self, event: SessionEvent) -> None:
        match event:
            case events.SpeechStarted():
                self._send(
                    ev.SpeechStarted(item_id=event.item_id, audio_start_ms=event.audio_start_ms)
                )
            case events.SpeechStopped():
                self._send(ev.SpeechStopped(item_id=event.item_id, audio_end_ms=event.audio_end_ms))
            case events.TimeoutTriggered():
                self._send(
                    ev.TimeoutTriggered(
                        item_id=event.item_id,
                        audio_start_ms=event.audio_start_ms,
                        audio_end_ms=event.audio_end_ms,
                    )
                )
            case events.Committed():
                self._send(
                    ev.Committed(item_id=event.item_id, previous_item_id=event.previous_item_id)
                )
            case events.Cleared():
                self._send(ev.Cleared())
            case events.ItemAdded() | events.ItemDone() | events.ItemDeleted():
                self._on_item(event)
            case events.ItemTruncated():
                self._send(
                    ev.ItemTruncated(
                        item_id=event.item_id, content_index=0, audio_end_ms=event.audio_end_ms
                    )
                )
            case events.OutputStarted() | events.OutputStopped() | events.OutputCleared():
                self._send(output_event(event))
            case events.TranscriptDelta() | events.TranscriptDone() | events.TranscriptFailed():
                self._send(transcript_event(event))
            case events.TurnMetrics() | events.StateChanged() | events.OutputDoubted():
                self._on_extension(event)
            case events.Speculated():
                self._metrics.observe_speculation(event)
            case events.Failed():
                self.refuse(event.message, event.code, kind="server_error")
            case _:
                self._responses.on_event(event)

    def _on_item(self, event: events.ItemAdded | events.ItemDone | events.ItemDeleted) -> None:
        hidden = self.remote_tools.items
        match event:
            case events.ItemAdded(item=item, previous_item_id=previous):
                previous = hidden.shown_before(item, previous)
                if hidden.is_hidden(item.id) or is_request(item):
                    return
                self._send(ev.ItemAdded(item=view_of(item), previous_item_id=previous))
                self._responses.item_added(item.id)
            case events.ItemDone(item=item, previous_item_id=previous):
                previous = hidden.shown_before(item, previous)
                if hidden.is_hidden(item.id) or item.status == "in_progress":
                    return
                if not self._responses.owns(item.id):
                    self._send(ev.ItemDone(item=view_of(item), previous_item_id=previous))
            case events.ItemDeleted(item_id=item_id):
                if not hidden.is_hidden(item_id):
                    self._send(ev.ItemDeleted(item_id=item_id))
            case _:
                assert_never(event)

    def _on_extension(
        self, event: events.TurnMetrics | events.StateChanged | events.OutputDoubted
    ) -> None:
        if isinstance(event, events.OutputDoubted):
            if "x.output.doubt" in self.session.x_ext:
                self._send(ev.OutputDoubt(doubt=event.doubt))
            return
        if isinstance(event, events.StateChanged):
            if "x.turn.state" in self.session.x_ext:
                self._send(ev.TurnState(state=event.state))
            return
        self._metrics.observe_turn(event)
        told = metrics_event(event)
        if "x.metrics" in self.session.x_ext:
            self._send(told)
