"""The text of a tool call, read while it is written: its name, then its arguments piece by piece.

The format is the one that Qwen's models were trained on, JSON between two tokens of their own:

    <tool_call>
    {"name": "look", "arguments": {"at": "the sky"}}
    </tool_call>

Arguments are passed on as they are written, so that the pieces joined are the whole. What does not
follow this order of keys waits for the end of the call and is told in one piece. Nothing is told of
the call of a tool that was not offered: models make names up, and who asked could do nothing with
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.content import CallEvent
from models.detokenizer import IncrementalDetokenizer
from models.errors import ToolCallError

_OPENING = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_CLOSING_OF = {"{": "}", "[": "]"}


def offered_names(tools: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Names of the tools that a model is shown, with or without a level `function`."""
    functions = (tool.get("function", tool) for tool in tools)
    named = (one.get("name") for one in functions if isinstance(one, Mapping))
    return frozenset(name for name in named if isinstance(name, str))


@dataclass(frozen=True, slots=True)
class CallPiece:
    """More of a call: its name, and the next characters of its arguments."""

    name: str
    arguments: str


class ToolCallReader:
    """Reads one call. `name` is known from the first piece on."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.arguments = ""
        self._unread = ""
        self._nesting: list[str] = []
        self._is_in_string = False
        self._is_escaped = False
        self._is_whole = False

    def push(self, text: str) -> CallPiece | None:
        """More of the text; what became known by it."""
        self._unread += text
        if self.name is None:
            found = _OPENING.match(self._unread)
            if found is None:
                return None
            self.name = json.loads(found[1], strict=False)
            self._unread = self._unread[found.end() :]
            return CallPiece(self.name or "", self._take_arguments())
        piece = self._take_arguments()
        return CallPiece(self.name, piece) if piece else None

    def end(self) -> CallPiece | None:
        """The call is over; its last piece. Brackets that were left open are closed.

        Raises:
            ToolCallError: that is no call, or its arguments are no JSON object.
        """
        if self.name is None:
            return self._read_whole()
        piece = "" if self._is_whole else self._missing()
        self.arguments += piece
        if not isinstance(_parsed(self.arguments), dict):
            raise ToolCallError(f"the arguments of the call of {self.name!r} are not JSON")
        return CallPiece(self.name, piece) if piece else None

    def _take_arguments(self) -> str:
        """Characters of the unread text that belong to the arguments; the rest is dropped."""
        taken = []
        for character in self._unread:
            if self._is_whole:
                break
            taken.append(character)
            self._follow(character)
        self._unread = ""
        piece = "".join(taken)
        self.arguments += piece
        return piece

    def _follow(self, character: str) -> None:
        if self._is_in_string:
            is_end = character == '"' and not self._is_escaped
            self._is_escaped = character == "\\" and not self._is_escaped
            self._is_in_string = not is_end
        elif character == '"':
            self._is_in_string = True
        elif character in _CLOSING_OF:
            self._nesting.append(_CLOSING_OF[character])
        elif self._nesting and character == self._nesting[-1]:
            self._nesting.pop()
            self._is_whole = not self._nesting

    def _missing(self) -> str:
        quote = '"' if self._is_in_string and not self._is_escaped else ""
        return quote + "".join(reversed(self._nesting))

    def _read_whole(self) -> CallPiece:
        """A call whose keys came in another order, or whose arguments are JSON inside a text."""
        call = _parsed(self._unread)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise ToolCallError("the model wrote a tool call that can not be read")
        arguments = call.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _parsed(arguments)
        if not isinstance(arguments, dict):
            raise ToolCallError(f"the arguments of the call of {call['name']!r} are not JSON")
        name: str = call["name"]
        self.name, self.arguments = name, json.dumps(arguments, ensure_ascii=False)
        return CallPiece(name, self.arguments)


def _parsed(text: str) -> Any:
    """The JSON in a text, None where there is none; a raw newline in a string is forgiven."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


class CallSplitter:
    """Tells the tokens of a reply's tool calls from the others.

    Args:
        open_id, close_id: the tokens around a call; None: the tokenizer has none, nothing is one.
        detokenizer: makes a new reader of tokens for each call.
        offered: names of the tools that may be called; none: any may.
    """

    def __init__(
        self,
        *,
        open_id: int | None,
        close_id: int | None,
        detokenizer: Callable[[], IncrementalDetokenizer],
        offered: frozenset[str] = frozenset(),
    ) -> None:
        self._open_id = open_id
        self._close_id = close_id
        self._offered = offered
        self._new_detokenizer = detokenizer
        self._detokenizer = detokenizer()
        self._reader: ToolCallReader | None = None
        self._num_calls = 0
        self._num_tokens = 0
        self._pieces: list[CallEvent] = []
        self.unoffered: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._reader is not None

    @property
    def is_settled(self) -> bool:
        """Whether there is no call of which it is not known yet if its tool was offered."""
        is_known = self._reader is None or self._reader.name is not None
        return is_known and self.unoffered is None

    def take_back(self) -> int:
        """Forget the call whose tool was not offered, `unoffered`; returns how many tokens it had,
        from the one that opened it to the last that was taken.
        """
        assert self.unoffered is not None
        self.unoffered, self._reader = None, None
        self._num_calls -= 1
        return self._num_tokens

    def takes(self, token: int) -> bool:
        """Whether a token belongs to a call, or stands behind one (and is then of no use).

        Raises:
            ToolCallError: it ends a call that can not be read.
        """
        self._num_tokens += 1
        if token == self._open_id:
            self._num_calls += 1
            self._num_tokens = 1
            self._reader, self._detokenizer = ToolCallReader(), self._new_detokenizer()
        elif self._reader is not None and token == self._close_id:
            self._note(self._reader.end(), is_done=True)
            self._reader = None
        elif self._reader is not None:
            self._note(self._reader.push(self._detokenizer.push(token)))
        return self._num_calls > 0

    def pieces(self) -> list[CallEvent]:
        """What became known since the last time, without the number of the response."""
        found, self._pieces = self._pieces, []
        return found

    def close(self) -> None:
        """The reply ended by itself: so does a call whose closing token was forgotten.

        Raises:
            ToolCallError: it can not be read.
        """
        if self._reader is not None:
            self._note(self._reader.end(), is_done=True)
            self._reader = None

    def _note(self, piece: CallPiece | None, *, is_done: bool = False) -> None:
        reader = self._reader
        if reader is None or reader.name is None or (piece is None and not is_done):
            return
        if self._offered and reader.name not in self._offered:
            self.unoffered = reader.name
            return
        self._pieces.append(
            CallEvent(
                response=0,
                index=self._num_calls - 1,
                name=reader.name,
                arguments=piece.arguments if piece else "",
                is_done=is_done,
            )
        )
