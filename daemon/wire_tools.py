"""Tools between the wire and the pipeline: which of them there are, which must be called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

from daemon.protocol import ProtocolError
from daemon.protocol_mcp import McpReference, McpTool
from daemon.protocol_tools import ForcedRemote, ForcedTool, FunctionTool
from daemon.remote_catalogue import RemoteFunction
from pipeline.messages import ToolChoice as EngineToolChoice


def own_functions(
    tools: Sequence[FunctionTool | McpTool | McpReference],
) -> tuple[FunctionTool, ...]:
    """Of some tools, those that the client answers."""
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


@dataclass(frozen=True, slots=True)
class ToolSet:
    """All that the model may call: functions of the client's, and what MCP servers have listed."""

    own: tuple[FunctionTool, ...]
    remote: tuple[RemoteFunction, ...]

    @property
    def functions(self) -> tuple[FunctionTool, ...]:
        """As the model sees them."""
        return (*self.own, *(each.function for each in self.remote))

    def lacks(self, choice: str | ForcedTool | ForcedRemote) -> str | None:
        """What must be called and is not there, as a sentence; None: the choice can be met."""
        if isinstance(choice, ForcedTool):
            if choice.name not in {tool.name for tool in self.functions}:
                return f"There is no tool '{choice.name[:80]}'."
        elif isinstance(choice, ForcedRemote):
            if not self._meant(choice):  # or its server has not listed it yet
                tool = "tools" if choice.name is None else f"tool '{choice.name[:80]}'"
                return f"MCP server '{choice.server_label[:80]}' has listed no {tool}."
        elif choice == "required" and not self.functions:
            return "A tool must be called, and there is none."
        return None

    def check(self, choice: str | ForcedTool | ForcedRemote, *, param: str) -> None:
        """Whether the choice can be met.

        Raises:
            ProtocolError: it can not.
        """
        if (lacking := self.lacks(choice)) is not None:
            raise ProtocolError(lacking, param=param)

    def terms(
        self, choice: str | ForcedTool | ForcedRemote
    ) -> tuple[tuple[str, ...], ToolChoiceTerms]:
        """What is shown to the model, and its choice. Of a server that must be called nothing but
        its tools is shown. A choice that can not be met is free.
        """
        shown = self.functions
        if self.lacks(choice) is not None:
            choice = "auto"
        elif isinstance(choice, ForcedRemote):
            meant = self._meant(choice)
            if len(meant) == 1:
                choice = ForcedTool(type="function", name=meant[0].function.name)
            else:
                shown, choice = tuple(each.function for each in meant), "required"
        terms = tool_choice(choice if shown else "none")
        return tuple(tool.for_template() for tool in shown), terms

    def _meant(self, choice: ForcedRemote) -> list[RemoteFunction]:
        return [
            each
            for each in self.remote
            if each.server_label == choice.server_label and choice.name in (None, each.name)
        ]
