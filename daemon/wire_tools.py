"""Tools between the wire and the pipeline: which of them there are, which must be called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, cast

from daemon.protocol import ProtocolError
from daemon.protocol_mcp import McpTool
from daemon.protocol_tools import ForcedTool, FunctionTool
from pipeline.messages import ToolChoice as EngineToolChoice


def own_functions(tools: Sequence[FunctionTool | McpTool]) -> tuple[FunctionTool, ...]:
    """Of a session's tools, those that the client answers."""
    return tuple(tool for tool in tools if isinstance(tool, FunctionTool))


class ToolChoiceTerms(TypedDict):
    """A tool choice as the pipeline wants it."""

    tool_choice: EngineToolChoice
    forced_tool: str | None


def tool_choice(choice: str | ForcedTool) -> ToolChoiceTerms:
    """A tool choice of the wire as the pipeline wants it."""
    if isinstance(choice, ForcedTool):
        return {"tool_choice": "required", "forced_tool": choice.name}
    assert choice in ("auto", "none", "required"), choice
    return {"tool_choice": cast(EngineToolChoice, choice), "forced_tool": None}


def check_forced(choice: ForcedTool, tools: Sequence[FunctionTool], *, param: str) -> None:
    """Whether the function that must be called exists.

    Raises:
        ProtocolError: it does not.
    """
    if choice.name not in {tool.name for tool in tools}:
        raise ProtocolError(f"There is no tool '{choice.name[:80]}'.", param=param)
