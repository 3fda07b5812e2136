"""Which tools the MCP servers of a session offer, and under which names the model calls them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.protocol_mcp import McpTool
from daemon.protocol_tools import MAX_TOOL_BYTES, FunctionTool

if TYPE_CHECKING:  # needs the SDK, which is an extra
    from daemon.mcp_client import ListedTool

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RemoteServer:
    """A server that the session names, and what it listed."""

    tool: McpTool
    listed: list[ListedTool] = field(default_factory=list)
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool of a server, by its name there."""

    server: McpTool
    name: str
    needs_approval: bool


class RemoteCatalogue:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.functions: tuple[FunctionTool, ...] = ()
        self._own: set[str] = set()
        self._servers: dict[str, RemoteServer] = {}
        self._names: dict[str, RemoteTool] = {}

    def declare(self, tools: Sequence[FunctionTool | McpTool]) -> None:
        """The session's tools from now on; servers that were not among them are `unasked`."""
        self._own = {tool.name for tool in tools if isinstance(tool, FunctionTool)}
        servers = [tool for tool in tools if isinstance(tool, McpTool)]
        old = self._servers
        self._servers = {
            tool.server_label: known
            if (known := old.get(tool.server_label)) is not None and known.tool == tool
            else RemoteServer(tool)
            for tool in servers
        }
        self._name()

    def unasked(self) -> list[RemoteServer]:
        """The servers that are to be asked for their tools; each is told once."""
        found = [server for server in self._servers.values() if not server.is_asked]
        for server in found:
            server.is_asked = True
        return found

    def take(self, server: RemoteServer, listed: Sequence[ListedTool]) -> None:
        """What a server listed; tools with too long a description are left out."""
        server.listed = [tool for tool in listed if len(json.dumps(tool.shown())) <= MAX_TOOL_BYTES]
        self._name()

    def find(self, name: str) -> RemoteTool | None:
        """The tool that the model calls so, or None."""
        return self._names.get(name)

    def _name(self) -> None:
        """Give each tool a name that is the model's for it alone."""
        self._names, functions = {}, []
        for server in self._servers.values():
            for tool in server.listed:
                name = self._free_name(server.tool.server_label, tool.name)
                if name is None:
                    log.warning("mcp tool left out: no name is free for it")
                    continue
                needs_approval = server.tool.needs_approval(
                    tool.name, is_read_only=tool.is_read_only
                )
                self._names[name] = RemoteTool(server.tool, tool.name, needs_approval)
                function = FunctionTool(
                    type="function",
                    name=name,
                    description=tool.description,
                    parameters=tool.parameters,
                )
                functions.append(function)
        self.functions = tuple(functions)

    def _free_name(self, label: str, name: str) -> str | None:
        for wanted in (name, f"{label}.{name}"):
            clean = re.sub(r"[^a-zA-Z0-9_.-]", "_", wanted)[:64]
            if clean and clean not in self._own and clean not in self._names:
                return clean
        return None
