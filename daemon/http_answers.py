"""Answers that are made while they are sent, and stop being made when the client goes away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from daemon.auth import Refusal

log = logging.getLogger(__name__)

STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Body:
    """The body of an answer: nothing is sent before the first piece, so that a failure until then
    still has a status of its own.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.has_begun = False

    async def answer(self, response: Response) -> None:
        """A whole answer."""
        self.has_begun = True
        await response(self._scope, self._receive, self._send)

    async def begin(self, media_type: str) -> None:
        """The head of an answer that comes in pieces."""
        self.has_begun = True
        headers = Response(media_type=media_type, headers=STREAM_HEADERS)
        raw = [header for header in headers.raw_headers if header[0] != b"content-length"]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def piece(self, data: bytes) -> None:
        """A piece; waits while the client is slow."""
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def event(self, data: dict[str, Any] | str) -> None:
        """A piece that is a server-sent event."""
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        await self.piece(f"data: {text}\n\n".encode())

    async def end(self) -> None:
        """There are no more pieces."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


Make = Callable[[Body], Awaitable[None]]


class MadeAnswer(Response):
    """Runs `make` with the answer's body. Where it raises a Refusal before it has begun, that is
    the answer; later the connection is cut, so that what is there does not look whole.
    """

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `starlette.responses.Response`."""
        body = Body(scope, receive, send)
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._answer(body), name="answer")
            watch = group.create_task(_until_gone(receive, work), name="client")
            work.add_done_callback(lambda _: watch.cancel())

    async def _answer(self, body: Body) -> None:
        try:
            await self._make(body)
        except Refusal as refusal:
            if body.has_begun:  # left without its end, the connection is cut
                log.warning("answer broke off: %s", refusal)
                return
            error = JSONResponse(refusal.body, refusal.status, refusal.headers)
            await body.answer(error)


async def _until_gone(receive: Receive, work: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    work.cancel()
