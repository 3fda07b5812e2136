"""The responses of one session: those that clients ask for are begun, and what the conversation
tells of any response is written.

What one `response.create` asks for is read by `daemon.asked`; how a response looks on the wire is
`daemon.replies`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from daemon.asked import (
    check_config,
    config_of,
    format_of,
    items_of,
    max_tokens,
    options_of,
    voice_of,
)
from daemon.metrics import Metrics
from daemon.protocol import ResponseParams, ServerEvent
from daemon.rates import RateLeft
from daemon.remote_catalogue import RemoteCatalogue
from daemon.remote_tools import RemoteTools
from daemon.replies import ReplyTerms, ReplyWriter
from daemon.settings import LimitSettings
from daemon.wire_session import Voices, WireSession
from daemon.wire_tools import ToolSet, own_functions
from pipeline import events
from pipeline.conversation import Conversation

log = logging.getLogger(__name__)

ResponseEvent = (
    events.ResponseStarted
    | events.ResponseItemStarted
    | events.ResponseText
    | events.ResponseAudio
    | events.ResponseCallDelta
    | events.ResponseCallFinished
    | events.ResponseFinished
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A response that a client asked for, and the tools of MCP servers that it may call."""

    params: ResponseParams
    catalogue: RemoteCatalogue


class Responses:
    """See the module's docstring.

    Args:
        session: the session as it is now.
        send: takes server events.
        is_paced: the daemon plays (WebRTC): audio goes over RTP and not as events.
        rate_left: what is left of the requests of the session's key; None: they are not limited.
    """

    def __init__(
        self,
        conversation: Conversation,
        remote_tools: RemoteTools,
        *,
        session: Callable[[], WireSession],
        send: Callable[[ServerEvent], None],
        voices: Voices,
        limits: LimitSettings,
        metrics: Metrics,
        is_paced: bool,
        rate_left: Callable[[], RateLeft | None],
    ) -> None:
        self._conversation = conversation
        self._remote_tools = remote_tools
        self._session = session
        self._send = send
        self._voices = voices
        self._limits = limits
        self._metrics = metrics
        self._is_paced = is_paced
        self._rate_left = rate_left
        self._writers: dict[str, ReplyWriter] = {}
        self._asked: _Asked | None = None
        self._warned_of: object = None  # a tool choice that could not be met

    async def create(self, asked: ResponseParams, catalogue: RemoteCatalogue) -> None:
        """Begin a response; `catalogue`: the tools of MCP servers that it may call.

        Raises:
            ProtocolError, BadInputError: it can not be made as it is asked for.
        """
        conversation, session = self._conversation, self._session()
        tools = session.tool_set
        if asked.tools is not None:
            tools = ToolSet(own_functions(asked.tools), catalogue.functions)
        # nobody hears a response beside the conversation, unless the client plays it
        output = "text" if asked.is_aside and self._is_paced else None
        options = options_of(asked, session, tools, default_output=output)
        config = config_of(asked, session, self._voices, tools)
        if config is not None:
            check_config(config, self._limits)
        items = await items_of(asked, session, conversation, self._limits)
        self._asked = _Asked(asked, catalogue)
        try:
            if asked.is_aside:
                conversation.respond_aside(options, config=config or session.config(), items=items)
            else:
                conversation.respond(options, config=config, items=items)
        finally:
            self._asked = None

    def owns(self, item_id: str) -> bool:
        """Whether a response that is being made tells the end of an item, at its place in the
        order.
        """
        return any(writer.owns(item_id) for writer in self._writers.values())

    def item_added(self, item_id: str) -> None:
        """An item is part of the conversation now; if a response speaks it, its content begins."""
        for writer in self._writers.values():
            if writer.item_id == item_id:
                writer.part_opened()

    def on_event(self, event: ResponseEvent) -> None:
        """What the conversation tells."""
        if isinstance(event, events.ResponseStarted):
            if not event.is_aside:
                self._remote_tools.begin_response()
            self._writers[event.response_id] = writer = self._begin(event)
            writer.created()
            return
        writer_of = self._writers.get(event.response_id)
        if writer_of is not None:
            self._write(writer_of, event)

    def _write(
        self,
        writer: ReplyWriter,
        event: events.ResponseItemStarted
        | events.ResponseText
        | events.ResponseAudio
        | events.ResponseCallDelta
        | events.ResponseCallFinished
        | events.ResponseFinished,
    ) -> None:
        match event:
            case events.ResponseItemStarted():
                if event.item.call is not None:
                    self._remote_tools.claim(event.item, writer.catalogue)
                writer.item_started(event.item)
            case events.ResponseText():
                writer.text(event.text)
            case events.ResponseAudio():
                writer.audio(event.pcm)
            case events.ResponseCallDelta():
                writer.call_arguments(event.item_id, event.arguments)
            case events.ResponseCallFinished():
                writer.call_finished(event)
                self._remote_tools.call_finished(event.item, writer)
            case events.ResponseFinished():
                self._metrics.responses.labels(event.status).inc()
                log.info("response id=%s status=%s", event.response_id, event.status)
                writer.finished(event)
                del self._writers[event.response_id]
                goes_on = event.status == "completed"
                self._remote_tools.response_finished(writer, goes_on=goes_on)
            case _:
                assert_never(event)

    def _begin(self, event: events.ResponseStarted) -> ReplyWriter:
        begun, self._asked = self._asked, None  # told inside `create`, or else by a turn's end
        asked, session = begun.params if begun else None, self._session()
        if begun is None:
            self._warn_of_choice(session)
        terms = ReplyTerms(
            conversation_id=None if event.is_aside else session.id.replace("sess_", "conv_", 1),
            audio_format=format_of(asked, session),
            voice=voice_of(asked) or session.voice,
            max_output_tokens=max_tokens(asked, session),
            metadata=asked.metadata if asked else None,
        )
        return ReplyWriter(
            event.response_id,
            has_audio=event.has_audio,
            sends_audio=event.is_aside or not self._is_paced,
            terms=terms,
            send=self._send,
            catalogue=begun.catalogue if begun else self._remote_tools.catalogue,
            rate_left=self._rate_left,
            asked=asked,
        )

    def _warn_of_choice(self, session: WireSession) -> None:
        """A turn is answered though its tool choice can not be met: nobody could be told by an
        error, and a person would meet silence.
        """
        lacking = session.tool_set.lacks(session.tool_choice)
        if lacking is not None and session.tool_choice != self._warned_of:
            self._warned_of = session.tool_choice
            log.warning("the reply may call what it likes: %s", lacking)
