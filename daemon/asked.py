"""What one `response.create` asks for, as the pipeline's options; what it does not name is the
session's.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from daemon.protocol import AudioFormatView, ItemIn, ProtocolError, ResponseParams
from daemon.protocol_tools import ForcedRemote, ForcedTool
from daemon.settings import LimitSettings
from daemon.text_limits import check_text
from daemon.wire_items import item_from_wire
from daemon.wire_session import Voices, WireSession
from daemon.wire_tools import ToolSet
from pipeline.conversation import Conversation
from pipeline.history import num_chars
from pipeline.items import Item
from pipeline.messages import ResponseOptions
from pipeline.session_config import SessionConfig


def max_tokens(asked: ResponseParams | None, session: WireSession) -> int | None:
    """The limit of a response; None: there is none."""
    if asked is None or asked.max_output_tokens is None:
        return session.max_output_tokens
    return None if asked.max_output_tokens == "inf" else int(asked.max_output_tokens)


def _choice(asked: ResponseParams, session: WireSession) -> str | ForcedTool | ForcedRemote:
    return session.tool_choice if asked.tool_choice is None else asked.tool_choice


def options_of(
    asked: ResponseParams,
    session: WireSession,
    tools: ToolSet,
    *,
    default_output: str | None = None,
) -> ResponseOptions:
    """The options of a response with these tools; `default_output`: its modality, where it names
    none.

    Raises:
        ProtocolError: it must call a tool that there is not.
    """
    default = session.config().response_options()
    output = (asked.output_modalities or [default_output or session.output])[0]
    options = replace(default, audio=output == "audio", max_tokens=max_tokens(asked, session))
    choice = _choice(asked, session)
    is_asked = asked.tool_choice is not None or asked.tools is not None
    tools.check(choice, param="response.tool_choice" if is_asked else "session.tool_choice")
    return replace(options, **tools.terms(choice)[1])


def format_of(asked: ResponseParams | None, session: WireSession) -> AudioFormatView:
    """The audio format of a response."""
    output = asked.audio.output if asked is not None and asked.audio is not None else None
    if output is None or output.format is None:
        return session.output_format
    return output.format.shown()


def voice_of(asked: ResponseParams | None) -> str | None:
    """The voice that a response names."""
    output = asked.audio.output if asked is not None and asked.audio is not None else None
    return output.voice if output is not None else None


def config_of(
    asked: ResponseParams, session: WireSession, voices: Voices, tools: ToolSet
) -> SessionConfig | None:
    """Instructions, voice and tools of a response; None where they are the session's.

    Raises:
        ProtocolError: there is no such voice.
    """
    config = session.config()
    changed = config
    if asked.instructions is not None:
        changed = replace(changed, instructions=asked.instructions)
    if (voice := voice_of(asked)) is not None:
        engine_voice = voices.resolve(voice, param="response.audio.output.voice")
        changed = replace(changed, voice=engine_voice)
    changed = replace(changed, tools=tools.terms(_choice(asked, session))[0])
    return None if changed == config else changed


async def items_of(
    asked: ResponseParams,
    session: WireSession,
    conversation: Conversation,
    limits: LimitSettings,
) -> list[Item] | None:
    """What a response answers; None: the conversation.

    Raises:
        ProtocolError: a reference to an item that there is not.
        BadInputError: media that can not be read, or too much text.
    """
    if asked.input is None:
        return None
    found: list[Item] = []
    for index, given in enumerate(asked.input):
        if isinstance(given, ItemIn):
            param = f"response.input[{index}]"
            audio_format = session.input_format
            found.append(
                await asyncio.to_thread(item_from_wire, given, limits, audio_format, param)
            )
        elif (item := conversation.get_item(given.id)) is not None:
            found.append(item)
        else:
            raise ProtocolError(
                f"The item with the id '{given.id[:32]}' does not exist.",
                code="item_not_found",
                param=f"response.input[{index}].id",
            )
    check_text(sum(map(num_chars, found)), limits, param="response.input")
    return found


def check_config(config: SessionConfig, limits: LimitSettings) -> None:
    """Whether instructions and tools of a response are not too long.

    Raises:
        BadInputError: they are.
    """
    check_text(len(config.instructions), limits, param="response.instructions")
    check_text(sum(map(len, config.tools)), limits, param="response.tools")
