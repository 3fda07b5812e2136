"""An exam for `omnid bench understanding`: a folder of recordings and pictures, and `exam.json`.

What its fields mean is said by whoever writes one (`omnid checkpoint exam`); this reads it and
finds what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.bench.errors import BenchError

EXAM_FILE = "exam.json"
CATEGORIES = ("text", "vision", "tool", "memory", "rejection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call: its name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One turn: what is said and shown, and what is to be answered.

    Attributes:
        reply: the words. others: words that are as right. call: the call that has to come before
            them; result: what it gives.
    """

    wav: Path
    pictures: tuple[Path, ...]
    reply: str
    others: tuple[str, ...] = ()
    call: Call | None = None
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A conversation. The last question counts; `category` is what it examines."""

    name: str
    category: str
    voices: str
    noise: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """All conversations, the tools that are offered where tools are examined, and recordings of the
    right replies by the voice that the model learnt from.
    """

    seed: int
    items: tuple[Item, ...]
    tools: tuple[Mapping[str, Any], ...]
    originals: Mapping[str, Path]


def read_exam(folder: Path) -> Exam:
    """The exam of a folder.

    Raises:
        BenchError: there is none, or it is damaged.
    """
    path = folder / EXAM_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        items = tuple(_item(one, folder) for one in raw["items"])
        exam = Exam(
            seed=int(raw["seed"]),
            items=items,
            tools=tuple(raw["tools"]),
            originals={text: folder / name for text, name in raw["originals"].items()},
        )
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} is not an exam ({error!r})") from error
    if not items:
        raise BenchError(f"{path} asks nothing")
    named = [file for item in items for q in item.questions for file in (q.wav, *q.pictures)]
    for file in (*named, *exam.originals.values()):
        if not file.is_file():
            raise BenchError(f"{path} names {file}, which is not there")
    return exam


def _item(raw: Mapping[str, Any], folder: Path) -> Item:
    item = Item(
        name=_text(raw["name"]),
        category=_text(raw["category"]),
        voices=_text(raw["voices"]),
        noise=_text(raw["noise"]),
        questions=tuple(_question(turn, folder) for turn in raw["turns"]),
    )
    if item.category not in CATEGORIES:
        raise ValueError(f"{item.name}: there is no category {item.category}")
    if not item.questions:
        raise ValueError(f"{item.name}: it has no turns")
    return item


def _question(raw: Mapping[str, Any], folder: Path) -> Question:
    call, others = raw.get("call"), raw.get("others", [])
    if not isinstance(others, list):
        raise TypeError("others: not a list")
    return Question(
        wav=folder / raw["wav"],
        pictures=tuple(folder / name for name in raw["pictures"]),
        reply=_text(raw["reply"]),
        others=tuple(map(_text, others)),
        call=None if call is None else Call(name=call["name"], arguments=call["arguments"]),
        result=_text(raw.get("result", "")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


def plain(text: str) -> str:
    """Lower case, single spaces, no punctuation: how replies are compared, and recognised."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
