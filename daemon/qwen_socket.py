"""The dialect of the hosted Qwen-Omni-Realtime service at `/api-ws/v1/realtime`.

Its clients talk to the same sessions through the same socket: events are translated on their way in
(`daemon.qwen_client`) and out (`daemon.qwen_server`). Here is what differs in behaviour: pictures
need sound before them, the reply to a tool's result begins by itself where turns end by themselves,
and a client says that it is finished.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.websockets import WebSocket

from daemon import qwen_client, qwen_server
from daemon.auth import ApiKeys, Refusal, send_refusal
from daemon.protocol import ProtocolError, ServerEvent, SessionPatch
from daemon.protocol import server_events as ev
from daemon.realtime import RealtimeSession
from daemon.sessions import NORMAL, SessionEnded, Sessions
from daemon.websocket import Connection

_CREATE = json.dumps({"type": "response.create"})


async def serve(websocket: WebSocket, sessions: Sessions, keys: ApiKeys) -> None:
    """Refuse an upgrade, or accept it and hold the session until it ends."""
    try:
        grant = keys.enter(websocket.headers, [])
        sessions.rates.take(grant.owner)
        place = sessions.take_place("websocket", grant.owner)
    except Refusal as refusal:
        await send_refusal(websocket.scope, websocket.send, refusal)
        return
    try:
        connection = QwenConnection(websocket, sessions)
        session = connection.open([grant.patch] if grant.patch else [], grant.owner)
        await websocket.accept()
        await connection.run(session)
    except ProtocolError as error:  # the session that a key carries is none for this dialect
        await send_refusal(websocket.scope, websocket.send, Refusal.of(error))
    finally:
        place.release()


class QwenConnection(Connection):
    """A client's socket that speaks the dialect."""

    _has_sound = False
    _is_finishing = False
    _is_replying = False
    _ends_turns = True
    _pending_calls: frozenset[str] = frozenset()
    _has_results = False

    def __init__(self, websocket: WebSocket, sessions: Sessions) -> None:
        super().__init__(websocket, sessions)
        self._is_finished = asyncio.Event()

    def _open(
        self, patches: Sequence[SessionPatch], send: Callable[[ServerEvent], None], owner: str
    ) -> RealtimeSession:
        """A key's own configuration comes after the dialect's defaults."""
        begun = SessionPatch.model_validate(qwen_client.defaults())
        return self._sessions.open(
            owner=owner,
            has_extensions=True,  # pictures are one
            model=self._websocket.query_params.get("model"),
            patches=[begun, *patches],
            send=send,
            max_event_bytes=self._sessions.settings.websocket.max_event_bytes,
        )

    def _parts(self, session: RealtimeSession) -> dict[str, Coroutine[Any, Any, None]]:
        return {**super()._parts(session), "finish": self._until_finished()}

    async def _until_finished(self) -> None:
        await self._is_finished.wait()
        raise SessionEnded(NORMAL, "The client is finished.")

    async def _handle(self, session: RealtimeSession, message: str | bytes) -> None:
        try:
            event = json.loads(message)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            await super()._handle(session, message)  # which says what is wrong with it
            return
        if event.get("type") == "session.finish":
            self._is_finishing = True
            self._finish_if_silent()
            return
        try:
            self._check_order(event)
            text = json.dumps(qwen_client.translated(event))
        except ProtocolError as error:
            given = event.get("event_id")
            event_id = given if isinstance(given, str) else None
            session.refuse(error.message, error.code, error.param, event_id=event_id, to=self._send)
            return
        await super()._handle(session, text)

    def _check_order(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "input_audio_buffer.append":
                self._has_sound = True
            case "input_audio_buffer.clear":
                self._has_sound = False
            case "input_image_buffer.append" if not self._has_sound:
                raise ProtocolError("Error append image before append audio.", param="image")

    def _send(self, event: ServerEvent) -> None:
        text = qwen_server.shown(event)
        if text is not None:
            self._put(text)
        self._note(event)

    def _note(self, event: ServerEvent) -> None:
        match event:
            case ev.SessionCreated() | ev.SessionUpdated():
                self._ends_turns = event.session.audio.input.turn_detection is not None
            case ev.ResponseCreated():
                self._is_replying = True
            case ev.CallArgumentsDone():
                self._pending_calls |= {event.call_id}
            case ev.ItemAdded() if event.item.type == "function_call_output":
                self._has_results |= event.item.call_id in self._pending_calls
                self._pending_calls -= {event.item.call_id or ""}
                self._continue_if_answered()
            case ev.ResponseDone():
                self._is_replying = False
                self._continue_if_answered()
                self._finish_if_silent()

    def _continue_if_answered(self) -> None:
        """Where turns end by themselves the answer to the results of all calls does so, too."""
        if self._has_results and not self._pending_calls and not self._is_replying:
            self._has_results = False
            if self._ends_turns:
                self._inbox.try_put(_CREATE)

    def _finish_if_silent(self) -> None:
        if self._is_finishing and not self._is_replying:
            self._put(qwen_server.finished())
            self._is_finished.set()
