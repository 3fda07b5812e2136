"""Where in its text a voice is, from how long each character takes to say.

Vowels last longer than consonants, a space takes next to nothing, but behind a comma it is a breath
and behind a full stop a longer one. It is an estimate: `tests/models/test_spoken_position.py`
holds it against the word times of a synthesizer.
"""

from __future__ import annotations

from bisect import bisect_right

VOWEL, CONSONANT, SPACE = 1.3, 1.0, 0.2
BREATH, LONG_BREATH = 3.0, 5.4
BREATHS = dict.fromkeys(",;:", BREATH) | dict.fromkeys(".!?", LONG_BREATH)


class SpokenText:
    """The text of a reply as it grows; effort counts in characters of usual English."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._last = ""

    @property
    def effort(self) -> float:
        """Of all of it."""
        return self._ends[-1] if self._ends else 0.0

    def grow(self, text: str) -> None:
        """Take in all the text so far; only what is new is looked at."""
        for char in text[len(self._ends) :]:
            self._ends.append(self.effort + _effort(char, self._last))
            self._last = char

    def chars_at(self, effort: float) -> int:
        """How many characters have been spoken after so much effort."""
        return bisect_right(self._ends, effort + 1e-6)


def _effort(char: str, before: str) -> float:
    if char.isspace():
        return BREATHS.get(before, SPACE)
    if char in BREATHS:
        return SPACE
    return VOWEL if char.lower() in "aeiouy" else CONSONANT
