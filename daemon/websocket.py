"""The WebSocket transport of one session: text frames in and out, bounded both ways.

A reader takes messages off the socket as they come (so that a closed socket is noticed at once),
the session obeys them in order, a writer sends. A client that does not read is closed with 1013.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from daemon.auth import ApiKeys, Refusal, send_refusal
from daemon.outbox import ByteQueue
from daemon.protocol import ServerEvent
from daemon.realtime import RealtimeSession
from daemon.sessions import NORMAL, OVERLOADED, RESTART, SessionEnded, Sessions

SUBPROTOCOL = "realtime"
MAX_EVENT_BYTES = 1_000_000  # some clients take no message over 1 MiB
FLUSH_S = 1.0


async def serve(websocket: WebSocket, sessions: Sessions, keys: ApiKeys) -> None:
    """Refuse an upgrade, or accept it and hold the session until it ends."""
    try:
        keys.check(websocket.headers, websocket.scope["subprotocols"])
        _check_query(websocket)
        place = sessions.take_place("websocket")
    except Refusal as refusal:
        await send_refusal(websocket.scope, websocket.send, refusal)
        return
    try:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        await _Connection(websocket, sessions).run()
    finally:
        place.release()


def has_extensions(query: str | None, header: str | None) -> bool:
    """Whether a client opted in to what stock clients do not know."""
    return (query or header or "") not in ("", "0")


def _check_query(websocket: WebSocket) -> None:
    query = websocket.query_params
    if "call_id" in query:
        raise Refusal(
            404, "No session found for the provided call_id", "call_id_not_found", param=""
        )
    if query.get("intent") == "transcription":
        raise Refusal(400, "Transcription sessions are not supported here yet.", "invalid_value")


class _Connection:
    """One accepted socket."""

    def __init__(self, websocket: WebSocket, sessions: Sessions) -> None:
        limits = sessions.settings.limits
        self._websocket = websocket
        self._sessions = sessions
        self._inbox = ByteQueue(limits.max_inbox_bytes)
        self._outbox = ByteQueue(limits.max_outbox_bytes)
        self._is_slow = asyncio.Event()
        self._session = sessions.open(
            model=websocket.query_params.get("model", ""),
            has_extensions=has_extensions(
                websocket.query_params.get("x-ext"), websocket.headers.get("x-ext")
            ),
            send=self._send,
            max_event_bytes=MAX_EVENT_BYTES,
        )

    async def run(self) -> None:
        """Hold the session; then send what is left, and close."""
        self._session.start()
        parts = {
            "reader": self._read(),
            "obey": self._obey(self._session),
            "writer": self._write(),
            "slowness": self._watch_slowness(),
        }
        ended = await self._sessions.run(self._session, parts)
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
            await session.handle(message)

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
