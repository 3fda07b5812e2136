"""Which tools the MCP servers of a session offer, and under which names the model calls them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.protocol import ProtocolError
from daemon.protocol_mcp import McpReference, McpTool, check_reachable
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


@dataclass(frozen=True, slots=True)
class RemoteFunction:
    """A tool of a server as the function that the model may call; `name` is its name there."""

    server_label: str
    name: str
    function: FunctionTool


class RemoteCatalogue:
    """The servers of a session, or those of one response."""

    def __init__(self) -> None:
        self.functions: tuple[RemoteFunction, ...] = ()
        self._own: set[str] = set()
        self._servers: dict[str, RemoteServer] = {}
        self._names: dict[str, RemoteTool] = {}

    @property
    def servers(self) -> Mapping[str, RemoteServer]:
        """By their labels."""
        return self._servers

    def declare(
        self,
        tools: Sequence[FunctionTool | McpTool],
        *,
        known: Mapping[str, RemoteServer] | None = None,
    ) -> None:
        """The tools from now on; servers that are not `known` (None: those until now) become
        `unasked`.
        """
        self._own = {tool.name for tool in tools if isinstance(tool, FunctionTool)}
        servers = [tool for tool in tools if isinstance(tool, McpTool)]
        old = self._servers if known is None else known
        self._servers = {
            tool.server_label: same
            if (same := old.get(tool.server_label)) is not None and same.tool == tool
            else RemoteServer(tool)
            for tool in servers
        }
        self._name()

    def of_response(
        self, tools: Sequence[FunctionTool | McpTool | McpReference], *, hosts: Sequence[str]
    ) -> RemoteCatalogue:
        """The servers of a response that names these tools; those of its session, which this
        catalogue holds, are known already.

        Raises:
            ProtocolError: a server that is not to be asked, or a label that the session has not.
        """
        wanted: list[FunctionTool | McpTool] = []
        for index, tool in enumerate(tools):
            param = f"response.tools[{index}]"
            if isinstance(tool, McpReference):
                if tool.server_label not in self._servers:
                    raise ProtocolError(
                        f"The session has no MCP server '{tool.server_label[:80]}'.",
                        param=f"{param}.server_label",
                    )
                wanted.append(self._servers[tool.server_label].tool)
                continue
            if isinstance(tool, McpTool):
                check_reachable(tool, hosts, param=param)
            wanted.append(tool)
        found = RemoteCatalogue()
        found.declare(wanted, known=self._servers)
        return found

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
                functions.append(RemoteFunction(server.tool.server_label, tool.name, function))
        self.functions = tuple(functions)

    def _free_name(self, label: str, name: str) -> str | None:
        for wanted in (name, f"{label}.{name}"):
            clean = re.sub(r"[^a-zA-Z0-9_.-]", "_", wanted)[:64]
            if clean and clean not in self._own and clean not in self._names:
                return clean
        return None
