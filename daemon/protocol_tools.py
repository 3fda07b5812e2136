"""Tools on the wire: what a client may declare, and which of them a reply may or must call.

Functions of the client's, and the tools of remote MCP servers.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from daemon.protocol_base import ClientModel, wrong_value
from daemon.protocol_mcp import McpReference, McpTool

MAX_TOOLS = 128
MAX_TOOL_BYTES = 65_536


class FunctionTool(ClientModel):
    """A function of the client's; `parameters` is a JSON schema. `strict` is taken and shown."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def shown(self) -> dict[str, Any]:
        """As a server echoes it."""
        return self.model_dump(exclude_none=True)

    def for_template(self) -> str:
        """JSON as chat templates want it."""
        function: dict[str, Any] = {
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters or {"type": "object", "properties": {}},
        }
        return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


class ForcedTool(ClientModel):
    """A tool choice that names the function."""

    type: Literal["function"]
    name: str


class ForcedRemote(ClientModel):
    """A tool choice that names an MCP server, and perhaps which of its tools, by its name there."""

    type: Literal["mcp"]
    server_label: str
    name: str | None = None


def _check_tools(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) > MAX_TOOLS:
        raise wrong_value("at most {most} tools", most=MAX_TOOLS)
    for tool in value:
        if len(json.dumps(tool)) > MAX_TOOL_BYTES:
            raise wrong_value("a tool may have {most} bytes", most=MAX_TOOL_BYTES)
    names = [str(_name_of(tool)) for tool in value if isinstance(tool, dict)]
    if len({*names}) < len(names):
        raise wrong_value("two tools have the same name")
    return value


def _name_of(tool: dict[str, Any]) -> tuple[bool, Any]:
    is_remote = tool.get("type") == "mcp"
    return is_remote, tool.get("server_label" if is_remote else "name")


def _parse_tool(value: Any) -> Any:
    is_remote = isinstance(value, dict) and value.get("type") == "mcp"
    return (McpTool if is_remote else FunctionTool).model_validate(value)


def _parse_response_tool(value: Any) -> Any:
    is_remote = isinstance(value, dict) and value.get("type") == "mcp"
    if is_remote and "server_url" not in value:
        return McpReference.model_validate(value)
    return _parse_tool(value)


def _check_function_choice(value: Any) -> Any:
    if isinstance(value, dict):
        try:
            return ForcedTool.model_validate(value)
        except ValidationError:
            raise wrong_value("should be {shape}", shape='{type: "function", name}') from None
    if value not in (None, "auto", "none", "required"):
        raise wrong_value(
            "should be 'auto', 'none', 'required', or an object that names a function"
        )
    return value


def _check_choice(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "mcp":
        return ForcedRemote.model_validate(value)
    return _check_function_choice(value)


AnyTool = Annotated[FunctionTool | McpTool, BeforeValidator(_parse_tool)]
Tools = Annotated[list[AnyTool] | None, BeforeValidator(_check_tools)]
ResponseTool = Annotated[
    FunctionTool | McpTool | McpReference, BeforeValidator(_parse_response_tool)
]
ResponseTools = Annotated[list[ResponseTool] | None, BeforeValidator(_check_tools)]
FunctionChoice = Annotated[str | ForcedTool, BeforeValidator(_check_function_choice)]
ToolChoice = Annotated[str | ForcedTool | ForcedRemote, BeforeValidator(_check_choice)]
