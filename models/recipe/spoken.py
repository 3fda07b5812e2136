"""How often which word follows which in what is said to the embedded model: `spoken_words.json`.

Held-out sentences are left out, as everywhere in training: what is measured with them is fair.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence

from models.recipe.hearing import SCALE
from models.recipe.tokenizer import Vocabulary
from models.recipe.utterances import UNKNOWN, random_prompt
from models.word_reading import MAX_PAST, SpokenWords, count_words

NUM_PROMPTS = 20_000
MIN_COUNT = 2  # of the longest pasts; rarer ones would be most of the file


def spoken_words(
    vocabulary: Vocabulary, *, is_left_out: Callable[[str], bool] = lambda _: False
) -> SpokenWords:
    """Counted in prompts of training. is_left_out: of prompts that shall not be known of."""
    ids = _ids(vocabulary)
    unknown = vocabulary.pieces.index(UNKNOWN)
    told: list[Sequence[int]] = [
        [ids.get(word, unknown) for word in prompt.split()]
        for prompt in _prompts()
        if not is_left_out(prompt)
    ]
    follows = {
        past: counts
        for past, counts in count_words(told).items()
        if len(past) < MAX_PAST or sum(counts.values()) >= MIN_COUNT
    }
    return SpokenWords(scale=SCALE, unknown=unknown, follows=follows)


@functools.cache
def _prompts() -> tuple[str, ...]:
    chance = random.Random("spoken words")
    return tuple(random_prompt(chance, "train") for _ in range(NUM_PROMPTS))


def _ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Words that are one token behind a space."""
    return {
        piece.removeprefix("Ġ"): index
        for index, piece in enumerate(vocabulary.pieces)
        if piece.startswith("Ġ") and len(piece) > 1
    }
