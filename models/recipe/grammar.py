"""Sentences with alternatives: `(what|which) colour is [all] this` -> every sentence it stands for.

Round brackets choose one, square brackets may be left out; both nest. Some of a grammar's sentences
are held out: never in training, so that a test asks for words in an order that the model has not
met. Knows nothing of what sentences mean.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from functools import cache
from typing import Literal

Split = Literal["train", "held_out"]

HELD_OUT_SHARE = 6  # one sentence of so many
MIN_TO_HOLD_OUT = 4  # a grammar of fewer sentences is all training


def expand(pattern: str) -> list[str]:
    """Every sentence of `pattern`, each once, in order; spaces are single.

    Raises:
        ValueError: a bracket is not closed.
    """
    sentences, rest = _alternatives(pattern)
    if rest:
        raise ValueError(f"unbalanced brackets in {pattern!r}")
    return list(dict.fromkeys(re.sub(r"\s+", " ", sentence).strip() for sentence in sentences))


@cache
def sentences(patterns: tuple[str, ...], split: Split) -> list[str]:
    """The sentences of all `patterns` together that belong to `split`."""
    found = list(dict.fromkeys(sentence for p in patterns for sentence in expand(p)))
    held_out = _held_out(found)
    return [sentence for sentence in found if (sentence in held_out) == (split == "held_out")]


def _held_out(found: list[str]) -> set[str]:
    """A fixed choice that leaves every word of the grammar in training."""
    wanted = len(found) // HELD_OUT_SHARE if len(found) >= MIN_TO_HOLD_OUT else 0
    wanted = max(wanted, int(len(found) >= MIN_TO_HOLD_OUT))
    chosen: set[str] = set()
    left = Counter(word for text in found for word in set(text.split()))
    for sentence in sorted(found, key=lambda text: zlib.crc32(text.encode())):
        if len(chosen) == wanted:
            break
        words = set(sentence.split())
        if all(left[word] > 1 for word in words):
            chosen.add(sentence)
            left.subtract(words)
    return chosen


def _alternatives(text: str) -> tuple[list[str], str]:
    """Sentences up to the bracket that closes this level, and what follows it."""
    finished: list[str] = []
    begun = [""]
    while text:
        first, text = text[0], text[1:]
        if first in "([":
            inner, text = _alternatives(text)
            if not text or text[0] != {"(": ")", "[": "]"}[first]:
                raise ValueError("a bracket is not closed")
            text = text[1:]
            if first == "[":
                inner.append("")
            begun = [left + right for left in begun for right in inner]
        elif first in ")]":
            return finished + begun, first + text
        elif first == "|":
            finished, begun = finished + begun, [""]
        else:
            begun = [left + first for left in begun]
    return finished + begun, ""
