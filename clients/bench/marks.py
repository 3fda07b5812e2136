"""Marks of an exam: each conversation's, and the shares that are right by category."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from clients.bench.exam import CATEGORIES, Call, Item, plain
from clients.bench.examinee import Answer
from clients.bench.judge import Judge
from clients.bench.websocket_peer import RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One conversation.

    Attributes:
        is_right: whether the last reply, and the call before it, is what it should be.
        is_understood: whether the recogniser hears in it the reply's own words; None where it can
            not say, because they are no reply of the exam.
    """

    name: str
    category: str
    voices: str
    noise: str
    expected: str
    text: str
    heard: str
    is_right: bool
    is_understood: bool | None
    failure: str | None

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def marked(item: Item, answers: Sequence[Answer], judge: Judge | None) -> Mark:
    """The mark of a conversation, by its last answer; without a judge its sound has none."""
    question, answer = item.questions[len(answers) - 1], answers[-1]
    is_last = len(answers) == len(item.questions)
    said = plain(answer.text)
    can_judge = judge is not None and said in judge.texts
    heard = judge.heard(answer.pcm, RATE_HZ) if judge is not None and answer.blocks else ""
    wanted = {plain(text) for text in (question.reply, *question.others)}
    is_right = is_last and said in wanted and _is_called(question.call, answer.calls)
    return Mark(
        name=item.name,
        category=item.category,
        voices=item.voices,
        noise=item.noise,
        expected=question.reply,
        text=answer.text,
        heard=heard,
        is_right=is_right and answer.failure is None,
        is_understood=heard == said if can_judge else None,
        failure=answer.failure,
    )


def summarize(marks: Sequence[Mark]) -> dict[str, Any]:
    """`{voices: {noise: {category_accuracy, category_count}}}`, `speech_accuracy` among them."""
    summary: dict[str, Any] = {}
    for voices in sorted({mark.voices for mark in marks}):
        summary[voices] = {}
        for noise in sorted({mark.noise for mark in marks}):
            some = [m for m in marks if m.voices == voices and m.noise == noise]
            summary[voices][noise] = _shares(some)
    return summary


def print_marks(report: Mapping[str, Any], console: Console) -> None:
    """The shares as a table."""
    table = Table("voices", "noise", *CATEGORIES, "speech", box=SIMPLE)
    for voices, by_noise in report["summary"].items():
        for noise, shares in by_noise.items():
            cells = [_cell(shares, name) for name in (*CATEGORIES, "speech")]
            table.add_row(voices, noise, *cells)
    console.print(table)
    recogniser = report["recogniser"]
    if recogniser is None:
        return
    console.print(
        f"The recogniser picks {recogniser['accuracy']:.1%} of the voice's own recordings rightly, "
        f"one of {recogniser['choices']}."
    )


def _shares(marks: Sequence[Mark]) -> dict[str, Any]:
    shares: dict[str, Any] = {}
    for category in CATEGORIES:
        right = [mark.is_right for mark in marks if mark.category == category]
        shares |= _share(category, right)
    return shares | _share(
        "speech", [m.is_understood for m in marks if m.is_understood is not None]
    )


def _share(name: str, right: Sequence[bool]) -> dict[str, Any]:
    accuracy = round(sum(right) / len(right), 3) if right else None
    return {f"{name}_accuracy": accuracy, f"{name}_count": len(right)}


def _cell(shares: Mapping[str, Any], name: str) -> str:
    accuracy, count = shares[f"{name}_accuracy"], shares[f"{name}_count"]
    return "–" if accuracy is None else f"{accuracy:.1%} of {count}"


def _is_called(wanted: Call | None, calls: Sequence[Mapping[str, Any]]) -> bool:
    """Exactly the call that should be, or none where none should be."""
    if wanted is None:
        return not calls
    if len(calls) != 1 or calls[0]["name"] != wanted.name:
        return False
    try:
        return bool(json.loads(calls[0]["arguments"]) == wanted.arguments)
    except ValueError:
        return False
