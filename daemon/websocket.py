"""The WebSocket transport of one session: text frames in and out, bounded both ways.

A reader takes messages off the socket as they come (so that a closed socket is noticed at once),
the session obeys them in order and no faster than the answers are read, a writer sends. A client
that does not read is closed with 1013.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from daemon.auth import ApiKeys, Refusal, send_refusal
from daemon.outbox import NUM_ANSWERS, ByteQueue
from daemon.places import RETRY_AFTER_S
from daemon.protocol import ProtocolError, ServerEvent, SessionPatch
from daemon.realtime import RealtimeSession
from daemon.resume import KeptSession, KeptSessions, is_dropped, resumed_event
from daemon.sessions import (
    INTERNAL_ERROR,
    NORMAL,
    OVERLOADED,
    RESTART,
    SessionEnded,
    Sessions,
    first_ending,
)

SUBPROTOCOL = "realtime"
FLUSH_S = 1.0
MAX_SIDEBANDS = 8  # of a call; each hears all of it, and takes memory and time for that


async def serve(
    websocket: WebSocket, sessions: Sessions, keys: ApiKeys, kept_sessions: KeptSessions
) -> None:
    """Refuse an upgrade, or accept it and hold the session until it ends."""
    try:
        await _serve(websocket, sessions, keys, kept_sessions)
    except Refusal as refusal:
        await send_refusal(websocket.scope, websocket.send, refusal)
    except ProtocolError as error:
        await send_refusal(websocket.scope, websocket.send, Refusal.of(error))


async def _serve(
    websocket: WebSocket, sessions: Sessions, keys: ApiKeys, kept_sessions: KeptSessions
) -> None:
    """The same; raises Refusal or ProtocolError before the upgrade."""
    query, headers = websocket.query_params, websocket.headers
    offered = websocket.scope["subprotocols"]
    accepted = SUBPROTOCOL if SUBPROTOCOL in offered else None
    if (call_id := query.get("call_id")) is not None:
        owner = keys.check(headers, offered).owner
        sessions.rates.take(owner)
        session, is_over = sessions.find_call(call_id, owner)
        if session.num_joined >= MAX_SIDEBANDS:
            message = f"At most {MAX_SIDEBANDS} further channels to one call at once."
            raise Refusal(429, message, "too_many_channels", retry_after_s=RETRY_AFTER_S)
        await websocket.accept(subprotocol=accepted)
        with sessions.attending():
            await _Sideband(websocket, sessions).run(session, is_over)
        return
    grant = keys.enter(headers, offered)
    sessions.rates.take(grant.owner)  # also of who tries tokens
    if (token := query.get("resume")) is not None:
        kept, session = kept_sessions.find(token, grant.owner)
        await websocket.accept(subprotocol=accepted)
        await _Returning(websocket, sessions, kept).come_back(session, query.get("after"))
        return
    patches = [grant.patch] if grant.patch else []
    place, is_kept = sessions.take_place("websocket", grant.owner), False
    try:
        if has_extensions(query.get("x-ext"), headers.get("x-ext")):
            returning = _Returning(websocket, sessions, kept_sessions.new(grant.owner))
            session = returning.open(patches)
            await websocket.accept(subprotocol=accepted)
            kept_sessions.start(returning.kept, session, place)
            is_kept = True
            await returning.begin(session)
        else:
            connection = Connection(websocket, sessions)
            session = connection.open(patches, grant.owner)
            await websocket.accept(subprotocol=accepted)
            await connection.run(session)
    finally:
        if not is_kept:
            place.release()


def has_extensions(query: str | None, header: str | None) -> bool:
    """Whether a client opted in to what stock clients do not know."""
    return (query or header or "") not in ("", "0")


def _is_goodbye(message: Mapping[str, Any]) -> bool:
    """Whether a disconnect was one side's wish. A connection that broke has no reason, not even an
    empty one; 1011 is one that no longer answered our pings.
    """
    return message.get("reason") is not None and message.get("code") != INTERNAL_ERROR


class _Socket:
    """One accepted socket, with what waits to be obeyed and to be sent."""

    def __init__(self, websocket: WebSocket, sessions: Sessions) -> None:
        limits = sessions.settings.limits
        self._websocket = websocket
        self._sessions = sessions
        self._inbox = ByteQueue(limits.max_inbox_bytes)
        self._outbox = ByteQueue(limits.max_outbox_bytes)
        self._is_slow = asyncio.Event()
        self._answer_bytes = NUM_ANSWERS * sessions.settings.websocket.max_event_bytes

    def _parts(self, session: RealtimeSession) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "reader": self._read(),
            "obey": self._obey(session),
            "writer": self._write(),
            "slowness": self._watch_slowness(),
        }

    async def _finish(self, ended: SessionEnded) -> None:
        """Send what is left, as far as the peer reads it soon, and close."""
        with contextlib.suppress(WebSocketDisconnect, SessionEnded, RuntimeError):  # a peer is gone
            if self._websocket.client_state is not WebSocketState.CONNECTED:
                return
            self._outbox.close()
            if ended.code != OVERLOADED:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_S):
                        await self._write()
            await self._websocket.close(ended.code, ended.reason)

    def _send(self, event: ServerEvent) -> None:
        self._put(event.to_json())

    def _put(self, text: str) -> None:
        if not self._is_slow.is_set() and not self._outbox.try_put(text):
            self._is_slow.set()  # nothing follows what is missing here

    def _open(
        self, patches: Sequence[SessionPatch], send: Callable[[ServerEvent], None], owner: str
    ) -> RealtimeSession:
        query, headers = self._websocket.query_params, self._websocket.headers
        return self._sessions.open(
            owner=owner,
            has_extensions=has_extensions(query.get("x-ext"), headers.get("x-ext")),
            is_transcription=query.get("intent") == "transcription",
            model=query.get("model"),
            patches=patches,
            send=send,
            max_event_bytes=self._sessions.settings.websocket.max_event_bytes,
        )

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or NORMAL
                who = "server is shutting down" if code == RESTART else "client closed the socket"
                raise SessionEnded(code, f"The {who}.", is_meant=_is_goodbye(message))
            text = message.get("text")
            await self._inbox.put(text if text is not None else message.get("bytes") or b"")

    async def _obey(self, session: RealtimeSession) -> None:
        while (message := await self._inbox.get()) is not None:
            if not await self._outbox.until_room(self._answer_bytes):
                self._is_slow.set()
            await self._handle(session, message)

    async def _handle(self, session: RealtimeSession, message: str | bytes) -> None:
        await session.handle(message, sender=self._send)

    async def _write(self) -> None:
        while (message := await self._outbox.get()) is not None:
            await self._send_text(message)

    async def _watch_slowness(self) -> None:
        await self._is_slow.wait()
        self._sessions.metrics.dropped.labels("slow_client").inc()
        raise SessionEnded(OVERLOADED, "The client does not read fast enough.")

    async def _send_text(self, message: str | bytes) -> None:
        assert isinstance(message, str), type(message)
        try:
            await self._websocket.send_text(message)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise SessionEnded(NORMAL, "The client closed the socket.", is_meant=False) from error


class Connection(_Socket):
    """A client's socket: the session lives as long as it."""

    def open(self, patches: Sequence[SessionPatch], owner: str) -> RealtimeSession:
        """A new session of a key's owner. Before the upgrade, so that it can still be refused.

        Raises:
            ProtocolError: one of `patches` does not fit.
        """
        return self._open(patches, self._send, owner)

    async def run(self, session: RealtimeSession) -> None:
        """Hold the session; then send what is left, and close."""
        session.start()
        await self._finish(await self._sessions.run(session, self._parts(session)))


class _Returning(_Socket):
    """A client's socket to a session that outlives it."""

    def __init__(self, websocket: WebSocket, sessions: Sessions, kept: KeptSession) -> None:
        super().__init__(websocket, sessions)
        self.kept = kept
        self._taken_over = asyncio.Event()
        self._num_unkept = 0

    def open(self, patches: Sequence[SessionPatch]) -> RealtimeSession:
        """The same of a session that sends to its journal."""
        return self._open(patches, self.kept.send, self.kept.owner)

    async def begin(self, session: RealtimeSession) -> None:
        """Be the first socket of a session, which runs already."""
        self._taken_over = self.kept.attach(self._put)
        session.start(resume_token=self.kept.token)
        await self._hold(session)

    async def come_back(self, session: RealtimeSession, after: str | None) -> None:
        """Take a session over: `session.created`, what is missing, and all that comes."""
        missing = self.kept.journal.seek(after)
        self._outbox.allow(sum(map(len, missing)))  # it is owed these, and has not been slow
        self._taken_over = self.kept.attach(self._put)
        session.conversation.note_outage(self.kept.take_outage_s())
        self._num_unkept = 1
        for text in [resumed_event(session, self.kept), *missing]:
            self._put(text)
        await self._hold(session)

    async def _hold(self, session: RealtimeSession) -> None:
        with self._sessions.attending():
            await self._hold_on(session)

    async def _hold_on(self, session: RealtimeSession) -> None:
        ended = SessionEnded(NORMAL, "")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_over(), name="session")
                group.create_task(_until_taken_over(self._taken_over), name="taken over")
                for name, part in self._parts(session).items():
                    group.create_task(part, name=name)
        except* SessionEnded as group_of:
            ended = first_ending(group_of)
        finally:
            self.kept.detach(self._taken_over)
        if not is_dropped(ended) and not self._taken_over.is_set():
            self.kept.end(ended)
        await self._finish(ended)

    async def _until_over(self) -> None:
        raise await asyncio.shield(self.kept.is_over)

    def _send(self, event: ServerEvent) -> None:
        self.kept.send(event)

    async def _send_text(self, message: str | bytes) -> None:
        await super()._send_text(message)
        if self._num_unkept:
            self._num_unkept -= 1
        else:
            self.kept.note_sent(self._taken_over)


class _Sideband(_Socket):
    """Another channel to a call's session, which goes on without it."""

    async def run(self, session: RealtimeSession, is_over: asyncio.Event) -> None:
        """Take part until the call or the socket ends."""
        ended = SessionEnded(NORMAL, "")
        try:
            with session.joined(self._send):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_until_over(is_over), name="call")
                    for name, part in self._parts(session).items():
                        group.create_task(part, name=name)
        except* SessionEnded as group_of:
            ended = first_ending(group_of)
        await self._finish(ended)


async def _until_over(is_over: asyncio.Event) -> None:
    await is_over.wait()
    raise SessionEnded(NORMAL, "The call is over.")


async def _until_taken_over(taken_over: asyncio.Event) -> None:
    await taken_over.wait()
    raise SessionEnded(NORMAL, "The session goes on over another socket.")
