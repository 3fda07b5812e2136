"""What one `response.create` asks for, as the pipeline's options; what it does not name is the
session's.
"""

from __future__ import annotations

from dataclasses import replace

from daemon.protocol import ProtocolError, ResponseParams
from daemon.protocol_tools import ForcedTool
from daemon.wire_session import WireSession, check_forced, tool_choice
from pipeline.messages import ResponseOptions


def max_tokens(asked: ResponseParams | None, session: WireSession) -> int | None:
    """The limit of a response; None: there is none."""
    if asked is None or asked.max_output_tokens is None:
        return session.max_output_tokens
    return None if asked.max_output_tokens == "inf" else int(asked.max_output_tokens)


def options_of(
    asked: ResponseParams, session: WireSession, default: ResponseOptions
) -> ResponseOptions:
    """The options of a response; `default`: what the session would take.

    Raises:
        ProtocolError: it must call a tool that there is not.
    """
    output = (asked.output_modalities or [session.output])[0]
    options = replace(default, audio=output == "audio", max_tokens=max_tokens(asked, session))
    tools = session.tools if asked.tools is None else asked.tools
    choice = session.tool_choice if asked.tool_choice is None else asked.tool_choice
    if isinstance(choice, ForcedTool):
        check_forced(choice, tools, param="response.tool_choice")
    elif choice == "required" and not tools:
        raise ProtocolError(
            "A tool must be called, and there is none.", param="response.tool_choice"
        )
    return replace(options, **tool_choice(choice if tools else "none"))
