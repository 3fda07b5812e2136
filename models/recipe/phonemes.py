"""The sounds of the vocabulary's words, as espeak-ng spells them: a help in learning to hear."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from models.errors import CheckpointError
from models.recipe.learner import Learner

SPACE = "Ġ"


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
