"""The sounds of the vocabulary's words, as espeak-ng spells them: a help in learning to hear, and
in learning what may have been misheard.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from models.errors import CheckpointError
from models.recipe.learner import Learner

SPACE = "Ġ"
ALIKE = 0.5  # sounds that differ, of those of the longer word
MAX_ALIKE = 6
_alike: dict[tuple[str, ...], Mapping[int, tuple[int, ...]]] = {}


def word_phonemes(learner: Learner) -> Mapping[int, tuple[int, ...]]:
    """Id of each spoken word -> the numbers of its phonemes, from 1 on; the same every time.

    Raises:
        CheckpointError: espeak-ng is not installed.
    """
    words = {
        index: piece[1:].lower()
        for index, piece in enumerate(learner.vocabulary.pieces)
        if piece.startswith(SPACE) and piece[1:].isalpha()
    }
    spelled = _spelled(list(words.values()))
    names = sorted({sound for sounds in spelled for sound in sounds})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    return {
        index: tuple(numbers[sound] for sound in sounds)
        for index, sounds in zip(words, spelled, strict=True)
        if sounds
    }


def words_alike(learner: Learner) -> Mapping[int, tuple[int, ...]]:
    """Id of a spoken word -> ids of the words that sound most like it, the likest first.

    Raises:
        CheckpointError: espeak-ng is not installed.
    """
    pieces = learner.vocabulary.pieces
    if pieces not in _alike:
        spelled = word_phonemes(learner)
        found: dict[int, list[tuple[float, int]]] = {index: [] for index in spelled}
        for first, sounds in spelled.items():
            for second, others in spelled.items():
                longest = max(len(sounds), len(others))
                if first < second and abs(len(sounds) - len(others)) <= ALIKE * longest:
                    share = edit_distance(sounds, others) / longest
                    if 0 < share <= ALIKE:
                        found[first].append((share, second))
                        found[second].append((share, first))
        _alike[pieces] = {
            index: tuple(other for _, other in sorted(near)[:MAX_ALIKE])
            for index, near in found.items()
        }
    return _alike[pieces]


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Insertions, deletions and substitutions that make one out of the other."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def num_phonemes(phonemes: Mapping[int, tuple[int, ...]]) -> int:
    """How many different ones there are."""
    return max(number for sounds in phonemes.values() for number in sounds)


def _spelled(words: list[str]) -> list[list[str]]:
    """Phonemes of each word, without stress."""
    command = ["espeak-ng", "-q", "-x", "--sep=_", "-v", "en-us"]
    try:
        done = subprocess.run(
            command, input="\n".join(words), capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise CheckpointError("espeak-ng is not installed") from None
    lines = done.stdout.splitlines()
    assert len(lines) == len(words), (len(lines), len(words))
    return [
        [sound.strip("',_ ") for sound in line.split("_") if sound.strip("',_ ")] for line in lines
    ]
