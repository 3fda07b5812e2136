"""The WebSocket transport of one session: text frames in and out, bounded both ways.

A reader takes messages off the socket as they come (so that a closed socket is noticed at once),
the session obeys them in order, a writer sends. A client that does not read is closed with 1013.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from daemon.auth import ApiKeys, Refusal, send_refusal
from daemon.outbox import ByteQueue
from daemon.protocol import ServerEvent, SessionPatch
from daemon.realtime import RealtimeSession
from daemon.sessions import (
    NORMAL,
    OVERLOADED,
    RESTART,
    SessionEnded,
    Sessions,
    first_ending,
)

SUBPROTOCOL = "realtime"
MAX_EVENT_BYTES = 1_000_000  # some clients take no message over 1 MiB
FLUSH_S = 1.0


async def serve(websocket: WebSocket, sessions: Sessions, keys: ApiKeys) -> None:
    """Refuse an upgrade, or accept it and hold the session until it ends."""
    try:
        await _serve(websocket, sessions, keys)
    except Refusal as refusal:
        await send_refusal(websocket.scope, websocket.send, refusal)


async def _serve(websocket: WebSocket, sessions: Sessions, keys: ApiKeys) -> None:
    """The same; raises Refusal before the upgrade."""
    offered = websocket.scope["subprotocols"]
    accepted = SUBPROTOCOL if SUBPROTOCOL in offered else None
    call_id = websocket.query_params.get("call_id")
    if call_id is not None:
        keys.check(websocket.headers, offered)
        session, is_over = sessions.find_call(call_id)
        await websocket.accept(subprotocol=accepted)
        await _Sideband(websocket, sessions).run(session, is_over)
        return
    grant = keys.enter(websocket.headers, offered)
    sessions.rates.take(grant.owner)
    place = sessions.take_place("websocket", grant.owner)
    try:
        await websocket.accept(subprotocol=accepted)
        await _Connection(websocket, sessions).run([grant.patch] if grant.patch else [])
    finally:
        place.release()


def has_extensions(query: str | None, header: str | None) -> bool:
    """Whether a client opted in to what stock clients do not know."""
    return (query or header or "") not in ("", "0")


class _Socket:
    """One accepted socket, with what waits to be obeyed and to be sent."""

    def __init__(self, websocket: WebSocket, sessions: Sessions) -> None:
        limits = sessions.settings.limits
        self._websocket = websocket
        self._sessions = sessions
        self._inbox = ByteQueue(limits.max_inbox_bytes)
        self._outbox = ByteQueue(limits.max_outbox_bytes)
        self._is_slow = asyncio.Event()

    def _parts(self, session: RealtimeSession) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "reader": self._read(),
            "obey": self._obey(session),
            "writer": self._write(),
            "slowness": self._watch_slowness(),
        }

    async def _finish(self, ended: SessionEnded) -> None:
        """Send what is left, and close."""
        with contextlib.suppress(WebSocketDisconnect, TimeoutError, RuntimeError):
            # a peer that is gone or does not read can not be told
            async with asyncio.timeout(FLUSH_S):
                await self._close(ended)

    def _send(self, event: ServerEvent) -> None:
        if not self._outbox.try_put(event.to_json()):
            self._is_slow.set()

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or NORMAL
                who = "server is shutting down" if code == RESTART else "client closed the socket"
                raise SessionEnded(code, f"The {who}.")
            text = message.get("text")
            await self._inbox.put(text if text is not None else message.get("bytes") or b"")

    async def _obey(self, session: RealtimeSession) -> None:
        while (message := await self._inbox.get()) is not None:
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
            raise SessionEnded(NORMAL, "The client closed the socket.") from error

    async def _close(self, ended: SessionEnded) -> None:
        if self._websocket.client_state is not WebSocketState.CONNECTED:
            return
        self._outbox.close()
        if ended.code != OVERLOADED:
            with contextlib.suppress(SessionEnded):
                await self._write()
        await self._websocket.close(ended.code, ended.reason)


class _Connection(_Socket):
    """A client's socket: the session lives as long as it."""

    async def run(self, patches: Sequence[SessionPatch]) -> None:
        """Hold the session; then send what is left, and close."""
        query, headers = self._websocket.query_params, self._websocket.headers
        session = self._sessions.open(
            has_extensions=has_extensions(query.get("x-ext"), headers.get("x-ext")),
            is_transcription=query.get("intent") == "transcription",
            patches=patches,
            send=self._send,
            max_event_bytes=MAX_EVENT_BYTES,
        )
        session.start()
        await self._finish(await self._sessions.run(session, self._parts(session)))


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
