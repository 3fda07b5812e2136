"""A checkpoint's chat template, and the pieces that it makes of a conversation.

Templates are programs from the internet: they run in Jinja's sandbox, and may only make text.
Knows no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.content import Role
from models.errors import CheckpointError

# What Qwen's templates come to for plain messages; used where a folder has no template.
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_TEXTS = ("omnid-first-text", "omnid-second-text", "omnid-third-text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What the template writes around messages.

    Attributes:
        opening: before a message's text, by role. closing: after it.
        assistant_header: what asks the assistant to speak.
    """

    opening: Mapping[Role, str]
    closing: str
    assistant_header: str


class ChatTemplate:
    """A compiled template, with its `pieces`.

    Every call raises `CheckpointError` where the template does not run or keeps messages not apart.
    """

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"chat template: {error}") from error
        self._has_parts = False
        # Some templates want the text of a message as a list of parts.
        self._has_parts = _TEXTS[0] not in self.render([("user", _TEXTS[0])])
        self.pieces = self._pieces()

    def render(
        self,
        messages: Sequence[tuple[Role, str]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = False,
    ) -> str:
        """The whole conversation as text."""
        given = [{"role": role, "content": self._content(text)} for role, text in messages]
        try:
            return self._template.render(
                messages=given,
                tools=list(tools) or None,
                add_generation_prompt=add_generation_prompt,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(f"chat template: {error}") from error

    def system(self, instructions: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """What the template writes before the first message of a conversation."""
        messages: list[tuple[Role, str]] = [("system", instructions)] if instructions else []
        rendered = self.render([*messages, ("user", _TEXTS[0])], tools=tools)
        before, _, _ = rendered.rpartition(_TEXTS[0])  # the last one: instructions may hold it, too
        return before.removesuffix(self.pieces.opening["user"])

    def _pieces(self) -> Pieces:
        """Cut a rendered conversation into what belongs to each message."""
        roles: tuple[Role, ...] = ("user", "assistant", "user")
        messages = list(zip(roles, _TEXTS, strict=True))
        before, first, second, closing = self._cut(self.render(messages))
        asked = self.render(messages, add_generation_prompt=True)
        opening: dict[Role, str] = {
            "user": _after(second, closing),
            "assistant": _after(first, closing),
        }
        system = self._cut(self.render([("system", _TEXTS[0]), ("user", _TEXTS[1])]), 2)
        opening["system"] = system[0]
        if not before.endswith(opening["user"]):
            raise CheckpointError("chat template: the first message is opened unlike the others")
        return Pieces(
            opening=opening,
            closing=closing,
            assistant_header=_after(asked, self.render(messages)),
        )

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self._has_parts else text

    def _cut(self, text: str, num_texts: int = len(_TEXTS)) -> list[str]:
        """What stands before, between and after the sentinels."""
        parts: list[str] = []
        for sentinel in _TEXTS[:num_texts]:
            part, found, text = text.partition(sentinel)
            if not found:
                raise CheckpointError("chat template: it does not write the text of its messages")
            parts.append(part)
        return [*parts, text]


def read_template(folder: Path) -> ChatTemplate:
    """The folder's template: its own file, or the tokenizer's, or plain ChatML.

    Raises:
        CheckpointError: a file can not be read, or the template does not run.
    """
    path = folder / "chat_template.jinja"
    try:
        if path.exists():
            return ChatTemplate(path.read_text(encoding="utf-8"))
        for name in ("chat_template.json", "tokenizer_config.json"):
            path = folder / name
            if path.exists():
                source = _default_source(json.loads(path.read_text(encoding="utf-8")))
                if source is not None:
                    return ChatTemplate(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can not read {path}: {error}") from error
    return ChatTemplate(CHATML)


def _default_source(raw: Mapping[str, Any]) -> str | None:
    """The template in a parsed file: one text, or a list of named ones."""
    if not isinstance(raw, dict):
        raise ValueError("it is not a JSON object")
    found = raw.get("chat_template")
    if isinstance(found, list):
        named = {item["name"]: item["template"] for item in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _after(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise CheckpointError("chat template: it does not close its messages alike")
    return text.removeprefix(prefix)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter would escape HTML; models were trained on plain JSON."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
