"""A remote MCP server made with the official SDK, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from daemon_rig import free_socket
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class RemoteRig:
    """`called`: what its tools were asked; `tokens`: what requests were let in with."""

    port: int
    called: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    is_slow: asyncio.Event = field(default_factory=asyncio.Event)

    def tool(self, **more: Any) -> dict[str, Any]:
        """As a session names it; nobody is asked."""
        return {
            "type": "mcp",
            "server_label": "town",
            "server_url": f"http://127.0.0.1:{self.port}/mcp",
            "require_approval": "never",
            **more,
        }


def _server(rig: RemoteRig) -> MCPServer:
    server = MCPServer("town")

    @server.tool(description="How it is there", annotations=ToolAnnotations(read_only_hint=True))
    def weather(place: str) -> str:
        rig.called.append(place)
        return f"sunny in {place}"

    @server.tool(description="Fails")
    def broken() -> str:
        raise ToolError("out of order")

    @server.tool(description="Answers too late")
    async def slow() -> str:
        rig.called.append("slow")
        rig.is_slow.set()
        await asyncio.sleep(30)
        return "late"

    @server.tool(description="Says too much")
    def long() -> str:
        return "x" * 40_000

    return server


def _noting_tokens(rig: RemoteRig, app: ASGIApp) -> ASGIApp:
    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        for name in (b"authorization", b"x-team"):
            if name in headers:
                rig.tokens.add(headers[name].decode())
        await app(scope, receive, send)

    return noted


class _Listening(uvicorn.Server):
    """Tells when it listens, and leaves the signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def remote() -> AsyncIterator[RemoteRig]:
    """Serve until the block ends."""
    with free_socket() as listener:
        rig = RemoteRig(listener.getsockname()[1])
        app = _noting_tokens(rig, _server(rig).streamable_http_app())
        config = uvicorn.Config(
            app, log_config=None, timeout_graceful_shutdown=1, ws="none", lifespan="on"
        )
        server = _Listening(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            await server.listening.wait()
            try:
                yield rig
            finally:
                server.should_exit = True
