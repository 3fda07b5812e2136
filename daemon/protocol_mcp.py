"""Remote MCP servers on the wire: how a session declares one, and the events of their tools."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from daemon.protocol_base import ClientModel, ProtocolError, ServerEvent

ToolNames = Annotated[list[str], Field(max_length=256)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,8192}$")]
# Neither a user nor a backslash before the path: parsers differ about whose host that leaves.
SERVER_URL = r"^https?://[A-Za-z0-9.:\[\]_-]+([/?#][\x21-\x5b\x5d-\x7e]*)?$"


class McpFilter(ClientModel):
    """Some of a server's tools: those of these names, those that (do not) only read."""

    tool_names: ToolNames | None = None
    read_only: bool | None = None

    def takes(self, name: str, *, is_read_only: bool) -> bool:
        """Whether a tool is among them."""
        is_named = self.tool_names is None or name in self.tool_names
        return is_named and self.read_only in (None, is_read_only)


class McpApproval(ClientModel):
    """Which calls the client is asked about; those that neither names, too."""

    always: McpFilter | None = None
    never: McpFilter | None = None


class McpTool(ClientModel):
    """A remote server whose tools the daemon calls itself. What it is let in with is never shown.

    `authorization`: a bearer token.
    """

    type: Literal["mcp"]
    server_label: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    server_url: str = Field(max_length=2048, pattern=SERVER_URL)
    server_description: str | None = None
    authorization: HeaderValue | None = Field(default=None, repr=False)
    headers: dict[HeaderName, HeaderValue] | None = Field(default=None, max_length=32, repr=False)
    allowed_tools: ToolNames | McpFilter | None = None
    require_approval: Literal["always", "never"] | McpApproval | None = None

    def shown(self) -> dict[str, Any]:
        """As a server echoes it."""
        return self.model_dump(exclude_none=True, exclude={"authorization", "headers"})

    def allows(self, name: str, *, is_read_only: bool) -> bool:
        """Whether the model may call a tool of the server."""
        allowed = self.allowed_tools
        if isinstance(allowed, list):
            return name in allowed
        return allowed is None or allowed.takes(name, is_read_only=is_read_only)

    def needs_approval(self, name: str, *, is_read_only: bool) -> bool:
        """Whether the client is asked before a tool is called; yes, if nothing says no."""
        wanted = self.require_approval
        if not isinstance(wanted, McpApproval):
            return wanted != "never"
        if wanted.always is not None and wanted.always.takes(name, is_read_only=is_read_only):
            return True
        return wanted.never is None or not wanted.never.takes(name, is_read_only=is_read_only)


class McpReference(ClientModel):
    """A server of the session's, by its label: a response may use it as it stands there."""

    type: Literal["mcp"]
    server_label: str


def check_reachable(tool: McpTool, hosts: Sequence[str], *, param: str) -> None:
    """Whether this server will ask that one.

    Raises:
        ProtocolError: its host is not listed in the settings, or the SDK is not installed.
    """
    try:
        host = urlsplit(tool.server_url).hostname
    except ValueError:
        host = None
    if host is None or host not in {name.lower() for name in hosts}:
        raise ProtocolError(
            "This server asks no MCP server of that host (its setting 'mcp.hosts' lists which).",
            code="url_not_allowed",
            param=f"{param}.server_url",
        )
    if importlib.util.find_spec("mcp") is None:
        raise ProtocolError(
            "MCP needs a package that this server lacks: pip install 'omnid[mcp]'.",
            code="not_installed",
            param=param,
        )


# ------------------------------------------------------------------------------- events
class ListToolsInProgress(ServerEvent):
    """A server is asked for its tools."""

    type: Literal["mcp_list_tools.in_progress"] = "mcp_list_tools.in_progress"
    item_id: str


class ListToolsCompleted(ServerEvent):
    """It told them."""

    type: Literal["mcp_list_tools.completed"] = "mcp_list_tools.completed"
    item_id: str


class ListToolsFailed(ServerEvent):
    """It did not."""

    type: Literal["mcp_list_tools.failed"] = "mcp_list_tools.failed"
    item_id: str


class McpArgumentsDelta(ServerEvent):
    """More of the arguments of a call."""

    type: Literal["response.mcp_call_arguments.delta"] = "response.mcp_call_arguments.delta"
    response_id: str
    item_id: str
    output_index: int
    delta: str


class McpArgumentsDone(ServerEvent):
    """All arguments of a call."""

    type: Literal["response.mcp_call_arguments.done"] = "response.mcp_call_arguments.done"
    response_id: str
    item_id: str
    output_index: int
    arguments: str


class _OfMcpCall(ServerEvent):
    item_id: str
    output_index: int


class McpCallInProgress(_OfMcpCall):
    """A tool is being called."""

    type: Literal["response.mcp_call.in_progress"] = "response.mcp_call.in_progress"


class McpCallCompleted(_OfMcpCall):
    """It answered."""

    type: Literal["response.mcp_call.completed"] = "response.mcp_call.completed"


class McpCallFailed(_OfMcpCall):
    """It did not, or with an error."""

    type: Literal["response.mcp_call.failed"] = "response.mcp_call.failed"
