"""Remote MCP servers over streamable HTTP: what tools they have, and calls of these.

The only file that imports the official SDK, which is an extra: import it where it is needed. Each
operation has a connection of its own, so nothing lives between two of them; a redirect is followed
within the server's origin alone. Nothing here is logged: addresses and headers may hold secrets.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent, Tool

from daemon.protocol_mcp import McpTool
from daemon.settings import McpSettings

MAX_LISTED = 128
CUT = "\n[The rest was too long.]"


class McpFailure(Exception):  # noqa: N818 - it fails, nothing here is wrong
    """A server did not do what it was asked to; `shown` is that in the words of the wire."""

    def __init__(self, kind: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.shown: dict[str, Any] = {"type": kind, "message": message}
        if code is not None:
            self.shown["code"] = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """A tool of a server, by its own name there; `parameters` is a JSON schema."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    annotations: dict[str, Any] | None
    is_read_only: bool

    def shown(self) -> dict[str, Any]:
        """As the wire has it."""
        found = {"name": self.name, "input_schema": self.parameters}
        optional = {"description": self.description, "annotations": self.annotations}
        return found | {key: value for key, value in optional.items() if value is not None}


async def list_tools(server: McpTool, settings: McpSettings) -> list[ListedTool]:
    """The tools that the server has and the session allows, the first 128. Safe to cancel.

    Raises:
        McpFailure: out of reach, too slow, or no MCP server.
    """
    found: list[Tool] = []
    async with _connected(server, settings) as client:
        cursor: str | None = None
        while len(found) < MAX_LISTED:
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
    listed = map(_listed, found)
    return [tool for tool in listed if server.allows(tool.name, is_read_only=tool.is_read_only)][
        :MAX_LISTED
    ]


async def call_tool(
    server: McpTool, name: str, arguments: dict[str, Any], settings: McpSettings
) -> str:
    """What a tool answers, as text. Safe to cancel.

    Raises:
        McpFailure: it answered with an error, or not at all.
    """
    async with _connected(server, settings) as client:
        result = await client.call_tool(name, arguments)
    text = _text(result)
    if len(text) > settings.max_output_chars:
        text = text[: settings.max_output_chars] + CUT
    if result.is_error:
        raise McpFailure("tool_execution_error", text or "The tool failed.")
    return text


def _listed(tool: Tool) -> ListedTool:
    hints = tool.annotations
    return ListedTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        annotations=None if hints is None else hints.model_dump(by_alias=True, exclude_none=True),
        is_read_only=bool(hints and hints.read_only_hint),
    )


def _text(result: CallToolResult) -> str:
    parts = [
        each.text if isinstance(each, TextContent) else f"[{each.type}]" for each in result.content
    ]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


@asynccontextmanager
async def _connected(server: McpTool, settings: McpSettings) -> AsyncIterator[Client]:
    headers = dict(server.headers or {})
    if server.authorization is not None:
        headers["Authorization"] = f"Bearer {server.authorization}"
    try:
        async with (
            # no proxy of the environment: it would be asked instead of the host that was checked
            httpx2.AsyncClient(
                headers=headers,
                timeout=settings.timeout_s,
                trust_env=False,
                transport=_BoundedTransport(settings.max_response_bytes),
            ) as http,
            Client(
                streamable_http_client(
                    server.server_url,
                    http_client=http,
                    max_sse_event_size=settings.max_response_bytes,
                ),
                read_timeout_seconds=settings.timeout_s,
                cache=None,
            ) as client,
        ):
            yield client
    except McpFailure:
        raise
    except Exception as error:  # the SDK's, the HTTP client's and the network's, often in groups
        raise _failure_of(error) from error


def _failure_of(error: BaseException) -> McpFailure:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, McpFailure):
        return error
    if isinstance(error, httpx2.HTTPStatusError):
        code = error.response.status_code
        return McpFailure("http_error", f"The MCP server answered with HTTP {code}.", code)
    if isinstance(error, MCPError):
        return McpFailure("protocol_error", error.message[:2000], error.code)
    return McpFailure("tool_execution_error", "The MCP server could not be reached.")


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Answers longer than `max_bytes` break off."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream, self._max_bytes)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                raise httpx2.ReadError("The answer is too long.")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
