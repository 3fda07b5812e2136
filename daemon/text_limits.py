"""How much text one request may give the engine to read: the setting `limits.max_text_chars`.

Far more than any context holds, but a bound: reading it takes the engine's time, which others need.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from daemon.settings import LimitSettings
from pipeline.errors import BadInputError
from pipeline.messages import (
    AudioPart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)


def check_text(num_chars: int, limits: LimitSettings, *, param: str) -> None:
    """Whether the texts of a request are not too long; `param` names them.

    Raises:
        BadInputError: they are.
    """
    if num_chars > limits.max_text_chars:
        raise BadInputError(
            f"At most {limits.max_text_chars} characters of text at once, not {num_chars}.",
            code="text_too_long",
            param=param,
        )


def chars_of(messages: Iterable[Message]) -> int:
    """Characters of all texts in messages."""
    return sum(_part_chars(part) for message in messages for part in message.parts)


def _part_chars(part: Part) -> int:
    match part:
        case TextPart():
            return len(part.text)
        case ToolCallPart():
            return len(part.name) + len(part.arguments)
        case ToolResultPart():
            return len(part.output)
        case AudioPart() | ImagePart():
            return 0
        case _:
            assert_never(part)
