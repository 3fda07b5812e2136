"""All sessions of a server: how many there may be, how each is opened, run and ended.

A session runs in one TaskGroup: its conversation, the parts of its transport, its clock. The first
of them that raises `SessionEnded` ends them all; any other error ends the session as an internal
failure and is logged. Nothing of a session outlives `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from daemon import logs
from daemon.auth import Refusal
from daemon.garbage import Collector
from daemon.metrics import Metrics
from daemon.places import Place, Places
from daemon.protocol import ProtocolError, ServerEvent, SessionPatch, SessionView
from daemon.protocol_server import SessionCreated
from daemon.protocol_session import MAX_MODEL_CHARS, SessionType, TranscriptionSessionView
from daemon.rates import RequestRates
from daemon.realtime import EXTENSIONS, RealtimeSession
from daemon.settings import Settings
from daemon.told import check_told
from daemon.wire_session import Moment, Voices, WireSession
from pipeline.clock import MonotonicClock
from pipeline.conversation import Conversation
from pipeline.engine_port import Engine
from pipeline.events import Emit
from pipeline.listening.judges import Judges
from pipeline.messages import EngineReady
from pipeline.playout import Playout
from pipeline.session_config import SessionConfig
from pipeline.vad import Vad

log = logging.getLogger(__name__)

SHUTTING_DOWN = "The server is shutting down."
CLOSE_S = 2.0
FOREVER_S = 10 * 365 * 86_400

NORMAL, GOING_AWAY, INTERNAL_ERROR, RESTART, OVERLOADED = 1000, 1001, 1011, 1012, 1013

Parts = Mapping[str, Coroutine[Any, Any, None]]


class Supervisor(Protocol):
    """What a server needs of the engine's keeper (`daemon.supervisor.EngineSupervisor`)."""

    @property
    def engine(self) -> Engine: ...

    @property
    def state(self) -> str:
        """ "loading" | "ready" | "failed" """

    @property
    def error(self) -> str | None: ...

    @property
    def info(self) -> EngineReady | None: ...

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class SessionEnded(Exception):  # noqa: N818 - an ending, not a fault
    """Why a session ends; code and reason are those of a WebSocket's close. `is_meant`: False where
    a connection broke.
    """

    def __init__(self, code: int, reason: str, *, is_meant: bool = True) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.is_meant = is_meant


@dataclass(slots=True)
class _Live:
    session: RealtimeSession
    call_id: str | None
    owner: str
    ended: asyncio.Future[SessionEnded]
    task: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """The sessions of one server. All on one event loop.

    Args:
        new_vad: makes each session's own speech detector.
        judges: of turns and interruptions, for all sessions.
    """

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        metrics: Metrics,
        *,
        new_vad: Callable[[], Vad],
        judges: Judges,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._supervisor = supervisor
        self._new_vad = new_vad
        self._judges = judges
        self.rates = RequestRates(settings.limits.requests_per_minute)
        self.places = Places(
            supervisor,
            metrics,
            max_taken=settings.session.max_sessions,
            max_per_key=settings.limits.max_sessions_per_key,
        )
        self._garbage = Collector()
        self._live: dict[str, _Live] = {}
        self._group: asyncio.TaskGroup | None = None
        self._cancels: set[Callable[[], None]] = set()
        self._attending: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------------ life of the server
    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Own the tasks of calls; on leaving, all sessions have ended."""
        async with asyncio.TaskGroup() as self._group:
            try:
                yield self
            finally:
                await self.aclose()

    def spawn(self, part: Coroutine[Any, Any, None], name: str) -> None:
        """Run something that belongs to no request; it must not raise."""
        assert self._group is not None, "not running"
        self._group.create_task(part, name=name)

    @contextlib.contextmanager
    def cancelled_at_end(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Call `cancel` if the server ends before the block does."""
        self._cancels.add(cancel)
        try:
            yield
        finally:
            self._cancels.discard(cancel)

    @contextlib.contextmanager
    def attending(self) -> Iterator[None]:
        """Have the end of the server wait for this task: it tells a client that a session ended."""
        task = asyncio.current_task()
        assert task is not None
        self._attending.add(task)
        try:
            yield
        finally:
            self._attending.discard(task)

    async def drain(self) -> None:
        """Take nobody new; wait until those who are here have gone, as long as they may take."""
        self.places.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.server.drain_s):
                await self.places.until_free()

    async def aclose(self) -> None:
        """Take no new sessions, end all that live, wait for them (bounded)."""
        self.places.close()
        for cancel in list(self._cancels):
            cancel()
        tasks = [live.task for live in self._live.values() if live.task is not None]
        for live in list(self._live.values()):
            live.session.refuse(SHUTTING_DOWN, "server_shutting_down")
            _end(live, SessionEnded(RESTART, SHUTTING_DOWN))
        tasks += self._attending
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()

    # ------------------------------------------------------------------ opening
    def take_place(self, transport: str, owner: str) -> Place:
        """A place for one more session or request; see `daemon.places`.

        Raises:
            Refusal: 503 or 429.
        """
        return self.places.take(transport, owner)

    def open(
        self,
        *,
        owner: str,
        has_extensions: bool,
        is_transcription: bool = False,
        model: str | None = None,
        send: Callable[[ServerEvent], None],
        max_event_bytes: int,
        patches: Sequence[SessionPatch] = (),
        playout: Playout | None = None,
    ) -> RealtimeSession:
        """A new session, not running yet. `model`: what the client calls it.

        Raises:
            daemon.protocol.ProtocolError: one of `patches` does not fit.
        """
        session = self._begin(
            EXTENSIONS if has_extensions else (),
            patches,
            is_transcription=is_transcription,
            model=model,
        )
        check_told(SessionCreated(session=session.view()), max_event_bytes, param="session")

        def open_conversation(config: SessionConfig, emit: Emit) -> Conversation:
            return Conversation(
                self._supervisor.engine,
                config=config,
                emit=emit,
                vad=self._new_vad(),
                clock=MonotonicClock(),
                playout=playout,
                judges=self._judges,
            )

        return RealtimeSession(
            session,
            send=send,
            open_conversation=open_conversation,
            voices=self.voices,
            limits=self.settings.limits,
            metrics=self.metrics,
            is_paced=playout is not None,
            max_event_bytes=max_event_bytes,
            rate_left=lambda: self.rates.left(owner),
        )

    def preview(self, patch: SessionPatch | None) -> SessionView | TranscriptionSessionView:
        """What a session with this configuration would be.

        Raises:
            daemon.protocol.ProtocolError: it does not fit.
        """
        view = self._begin((), [patch] if patch is not None else []).view()
        max_bytes = self.settings.websocket.max_event_bytes
        check_told(SessionCreated(session=view), max_bytes, param="session")
        return view

    def _begin(
        self,
        x_ext: tuple[str, ...],
        patches: Sequence[SessionPatch],
        *,
        is_transcription: bool = False,
        model: str | None = None,
    ) -> WireSession:
        """Clients have names of models built in and want back what they asked for: of several
        names the first that the client itself gave, then what its key carries.
        """
        voices = self.voices
        models = [model, *(patch.model for patch in reversed(patches)), self.model_name]
        if model is not None and len(model) > MAX_MODEL_CHARS:
            message = f"The name of a model may have {MAX_MODEL_CHARS} characters."
            raise ProtocolError(message, param="model")
        if is_transcription and any(patch.type != "transcription" for patch in patches):
            message = "The key is for a session that replies, not for one that transcribes."
            raise ProtocolError(message, param="intent")
        wanted: SessionType = "transcription" if is_transcription else "realtime"
        session = WireSession.begin(
            self.settings,
            voices,
            session_id=f"sess_{secrets.token_hex(10)}",
            session_type=patches[0].type if patches else wanted,
            model=next(name for name in models if name),
            expires_at=int(time.time()) + (self.settings.session.max_duration_s or FOREVER_S),
            x_ext=x_ext,
        )
        for patch in patches:
            session = session.patched(patch, voices, Moment())
        return session

    @property
    def engine(self) -> Engine:
        """The engine port."""
        return self._supervisor.engine

    @property
    def voices(self) -> Voices:
        """Which names of voices are answered."""
        info = self._supervisor.info
        return Voices(
            aliases=self.settings.voices, available=info.voices if info is not None else ()
        )

    @property
    def model_name(self) -> str:
        """What is served, as `/v1/models` names it."""
        info = self._supervisor.info
        return info.checkpoint if info is not None else self.settings.engine.model

    # ------------------------------------------------------------------ running
    async def run(
        self, session: RealtimeSession, parts: Parts, *, call_id: str | None = None, owner: str = ""
    ) -> SessionEnded:
        """Run a session with its transport's parts until the first of them ends it; say why.
        `owner`: of a call, who alone may attach to it and hang it up.
        """
        logs.session_id.set(session.session.id)
        live = _Live(session, call_id, owner, asyncio.get_running_loop().create_future())
        self._live[session.session.id] = live
        ended = SessionEnded(NORMAL, "")
        log.info("session begins model=%r x_ext=%s", session.session.model, session.session.x_ext)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_conversation(session.conversation), name="conversation")
                group.create_task(session.remote_tools.run(), name="remote tools")
                group.create_task(_until_told(live), name="until told")
                group.create_task(self._expire(session), name="expiry")
                for name, part in parts.items():
                    group.create_task(part, name=name)
        except* SessionEnded as group_of:
            ended = first_ending(group_of)
        except* Exception:
            log.exception("session failed")
            ended = SessionEnded(INTERNAL_ERROR, "Internal error.")
        finally:
            del self._live[session.session.id]
            live.is_over.set()
            await session.conversation.aclose()
            self._garbage.collect_soon()
            log.info("session ends code=%d reason=%r", ended.code, ended.reason)
        return ended

    def hang_up(self, call_id: str, owner: str) -> None:
        """End a call of an owner.

        Raises:
            Refusal: as `find_call`.
        """
        _end(self._find(call_id, owner), SessionEnded(NORMAL, "Hung up."))

    def find_call(self, call_id: str, owner: str) -> tuple[RealtimeSession, asyncio.Event]:
        """The session of a call of an owner, and what is set at its end.

        Raises:
            Refusal: 404, there is no such call, or it is somebody else's.
        """
        live = self._find(call_id, owner)
        return live.session, live.is_over

    def _find(self, call_id: str, owner: str) -> _Live:
        for live in self._live.values():
            if live.call_id == call_id and live.owner == owner:
                return live
        message = "No session found for the provided call_id"
        raise Refusal(404, message, "call_id_not_found", param="")

    async def _expire(self, session: RealtimeSession) -> None:
        limit_s = self.settings.session.max_duration_s
        await asyncio.sleep(limit_s or FOREVER_S)
        message = f"Your session hit the maximum duration of {limit_s / 60:g} minutes."
        session.refuse(message, "session_expired")
        raise SessionEnded(GOING_AWAY, message)


def _end(live: _Live, why: SessionEnded) -> None:
    if not live.ended.done():
        live.ended.set_result(why)


async def _until_told(live: _Live) -> None:
    raise await live.ended


async def _conversation(conversation: Conversation) -> None:
    await conversation.run()
    raise SessionEnded(INTERNAL_ERROR, "The conversation ended.")


def first_ending(group: BaseExceptionGroup[SessionEnded]) -> SessionEnded:
    """Of several reasons why a session ends, one."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, SessionEnded), found
    return found
