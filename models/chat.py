"""Text <-> token ids of one checkpoint: tokenizer, chat template cut into pieces, special ids.

A conversation is appended piece by piece, never rendered whole, so the template is rendered a few
times with sentinels when the checkpoint is loaded and cut at them: what opens and closes a
message of each role, and what asks the assistant to speak. Only the text of the template may hold
special tokens; everything else (instructions, typed text, tool descriptions) is encoded with a
tokenizer that knows none, so nobody can type himself a role. One difference from rendering whole:
text that begins with a newline does not merge with the newline of the role. Reading what the
model writes back to text is `IncrementalDetokenizer` in `models.detokenizer`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.chat_template import ChatTemplate, read_template
from models.config import OmniConfig
from models.content import Role
from models.detokenizer import IncrementalDetokenizer, token_bytes
from models.errors import CheckpointError

__all__ = ["ChatFormat", "IncrementalDetokenizer"]

# Breaks up special tokens in text that passes through the template. A noncharacter of Unicode:
# no text holds it.
_BREAK = "\ufdd0"


@dataclass(frozen=True, slots=True)
class _Special:
    """Special tokens: ids by text, what finds them, and what finds their first characters."""

    ids: Mapping[str, int]
    pattern: re.Pattern[str]
    first_characters: re.Pattern[str]


class ChatFormat:
    """See the module's docstring."""

    def __init__(
        self, tokenizer_json: Mapping[str, Any], template: ChatTemplate, config: OmniConfig
    ) -> None:
        self._tokenizer = _plain_tokenizer(tokenizer_json)
        self._special = _special_tokens(tokenizer_json)
        self._token_bytes = token_bytes(tokenizer_json)
        self._template = template
        self._config = config
        self._pieces = template.pieces
        self._check_ids()

    @classmethod
    def load(cls, folder: Path, config: OmniConfig) -> ChatFormat:
        """Read tokenizer and chat template of a checkpoint folder; ChatML where it has no template.

        Raises:
            CheckpointError: a file is missing or damaged, or tokenizer, template and config
            disagree.
        """
        return cls(_read_tokenizer(folder / "tokenizer.json"), read_template(folder), config)

    # ------------------------------------------------------------------ text -> ids
    def encode(self, text: str) -> list[int]:
        """Ids of untrusted text; the spelling of a special token in it is just text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of rendered template text: special tokens count, broken ones are text again."""
        ids: list[int] = []
        for part in self._special.pattern.split(text):
            if part in self._special.ids:
                ids.append(self._special.ids[part])
            elif part:
                ids.extend(self.encode(part.replace(_BREAK, "")))
        return ids

    def system_text(self, instructions: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """What precedes the first message, rendered; "" where the template writes nothing there."""
        return self._template.system(self._broken(instructions), _deep(tools, self._broken))

    def system_ids(self, instructions: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """The same as ids."""
        return self.encode_rendered(self.system_text(instructions, tools))

    def open_ids(self, role: Role) -> list[int]:
        """What opens a message: for ChatML `<|im_start|>`, the role, a newline."""
        return self.encode_rendered(self._pieces.opening[role])

    def close_ids(self) -> list[int]:
        """What closes a message: for ChatML `<|im_end|>` and a newline."""
        return self.encode_rendered(self._pieces.closing)

    def assistant_header_ids(self) -> list[int]:
        """What asks the assistant to speak."""
        return self.encode_rendered(self._pieces.assistant_header)

    # ------------------------------------------------------------------ tools
    def tool_call_text(self, name: str, arguments: str) -> str:
        """A call that the assistant made, as the model itself writes it; rendered."""
        return f"{self._tool_opening(name)}{self._broken(arguments)}}}\n</tool_call>"

    def tool_opening_ids(self, name: str | None) -> list[int]:
        """The beginning of a reply that has to call a tool: that one, or any (None)."""
        opening = '<tool_call>\n{"name": "' if name is None else self._tool_opening(name)
        return self.encode_rendered(opening.rstrip(" "))

    def tool_result_text(self, output: str) -> str:
        """What a tool answered, as it stands in a user's message; rendered."""
        return f"<tool_response>\n{self._broken(output)}\n</tool_response>"

    def _tool_opening(self, name: str) -> str:
        quoted = self._broken(json.dumps(name, ensure_ascii=False))
        return f'<tool_call>\n{{"name": {quoted}, "arguments": '

    # ------------------------------------------------------------------ ids -> text
    def detokenizer(self) -> IncrementalDetokenizer:
        """A new reader of one reply's tokens."""
        return IncrementalDetokenizer(self._token_bytes)

    # ------------------------------------------------------------------ special ids
    @property
    def tool_call_id(self) -> int | None:
        """The token that opens a tool call; None where the tokenizer has none."""
        return self._special.ids.get("<tool_call>")

    @property
    def tool_call_end_id(self) -> int | None:
        """The token that closes a tool call; None where the tokenizer has none."""
        return self._special.ids.get("</tool_call>")

    @property
    def vision_end_id(self) -> int:
        """The token after a picture: the config's, else the tokenizer's `<|vision_end|>`.

        Raises:
            CheckpointError: neither knows one.
        """
        found = self._config.thinker.vision_end_id
        if found is None:
            found = self._special.ids.get("<|vision_end|>")
        if found is None:
            raise CheckpointError("neither config.json nor tokenizer.json has a vision_end token")
        return found

    @property
    def stop_ids(self) -> frozenset[int]:
        """The token that ends a message; `generation_config.json` may name more."""
        return frozenset({self._config.im_end_id})

    # ------------------------------------------------------------------ parts
    def _broken(self, text: str) -> str:
        return self._special.first_characters.sub(rf"\g<1>{_BREAK}", text)

    def _check_ids(self) -> None:
        """The talker's prefix and the rules of positions rest on these."""
        config = self._config
        wanted = [config.im_start_id, config.assistant_id]
        if self.assistant_header_ids()[:2] != wanted:
            raise CheckpointError(
                f"the chat template opens a reply with ids {self.assistant_header_ids()}, "
                f"config.json with {wanted}"
            )
        if self.close_ids()[:1] != [config.im_end_id]:
            raise CheckpointError(
                f"the chat template closes a message with ids {self.close_ids()}, "
                f"config.json with {config.im_end_id}"
            )


def _read_tokenizer(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} holds no tokenizer.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can not read {path}: {error}") from error
    if not isinstance(raw, dict) or "model" not in raw:
        raise CheckpointError(f"{path} is not a tokenizer")
    return raw


def _plain_tokenizer(raw: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer without added tokens: no text that it is given becomes one."""
    plain = dict(raw, added_tokens=[], post_processor=None, truncation=None, padding=None)
    try:
        return Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"tokenizer.json: {error}") from error


def _special_tokens(raw: Mapping[str, Any]) -> _Special:
    ids = {str(token["content"]): int(token["id"]) for token in raw.get("added_tokens", ())}
    longest_first = sorted(ids, key=len, reverse=True)
    either = "|".join(map(re.escape, longest_first)) or r"(?!)"
    return _Special(ids, re.compile(f"({either})"), re.compile(f"(?=(?:{either}))(.)", re.DOTALL))


def _deep(value: Any, change: Any) -> Any:
    """`value` (JSON) with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _deep(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_deep(item, change) for item in value]
    return value
