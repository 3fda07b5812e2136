"""What is said of a grammar's sentences: any of them, in training often dressed.

There are few sentences for each thing to say; alone they are learnt as wholes.
"""

from __future__ import annotations

import random
from functools import cache

from models.recipe import phrases
from models.recipe.grammar import Split, expand, sentences
from models.recipe.more_talk import MORE_TALK

DRESSED_SHARE = 0.3  # of prompts in training: said with something around that changes nothing
BEFORE = ("hello", "hi", "hey", "please", "now", "thank you", "good morning")
BEHIND = ("please", "now", "my friend", "today", "thank you", "here")


def drawn_prompt(
    chance: random.Random, patterns: tuple[str, ...], split: Split, *, is_open: bool = False
) -> str:
    """A sentence of the patterns; in training often with something before or behind it.

    Args:
        is_open: it ends with what somebody is to repeat, so nothing may follow.
    """
    prompt = chance.choice(sentences(patterns, split) or sentences(patterns, "train"))
    if split != "train" or chance.random() >= DRESSED_SHARE:
        return prompt
    is_before = is_open or chance.random() < 0.5
    dressed = (
        f"{chance.choice(BEFORE)} {prompt}" if is_before else f"{prompt} {chance.choice(BEHIND)}"
    )
    return prompt if dressed in sentences(patterns, "held_out") else dressed


@cache
def more_sentences(name: str) -> list[str]:
    """More small talk of a name, which only training has: nothing that its patterns hold out."""
    patterns, _ = phrases.SMALL_TALK[name]
    held_out = sentences(patterns, "held_out")
    found = dict.fromkeys(sentence for pattern in MORE_TALK[name] for sentence in expand(pattern))
    return [sentence for sentence in found if sentence not in held_out]


@cache
def small_talk(name: str) -> list[str]:
    """All small talk of a name that training has."""
    patterns, _ = phrases.SMALL_TALK[name]
    return [*sentences(patterns, "train"), *more_sentences(name)]
