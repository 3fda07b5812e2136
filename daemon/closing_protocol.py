"""uvicorn's WebSocket connection, with an end that comes whether the peer reads or not.

asyncio closes a connection when what is buffered for it has been sent. A peer that has stopped
reading would thereby keep its connection, and what waits for it, for ever; and the frame that says
why would never be written, because a full connection is not written to. Here the close frame goes
behind what waits at once, so that a peer that reads on is told, and after `CLOSE_S` the connection
is cut.
"""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CLOSE_S = 10.0  # from the close frame, for the peer to read what is left and to answer


class ClosingProtocol(WebSocketsSansIOProtocol):
    """See the module's docstring."""

    _cut: asyncio.TimerHandle | None = None

    async def run_asgi(self) -> None:
        """See uvicorn. Without the application nobody waits for the peer any more."""
        try:
            await super().run_asgi()
        finally:
            self._cut_later()

    async def send(self, message: ASGISendEvent) -> None:
        """See uvicorn. A close does not wait until the peer reads."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self._cut_later()
        await super().send(message)

    def keepalive_timeout(self) -> None:
        """See uvicorn."""
        super().keepalive_timeout()
        self._cut_later()

    def shutdown(self) -> None:
        """See uvicorn."""
        super().shutdown()
        self._cut_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)

    def _cut_later(self) -> None:
        if self._cut is None and not self.disconnected:
            self._cut = self.loop.call_later(CLOSE_S, self.transport.abort)
