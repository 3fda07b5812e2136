"""Speech that is not the model's.

People ask for anything. What it has practised of that the ear writes as UNKNOWN; of words that it
never met it writes some that sound alike: "call an ambulance" was "call Laura" for most voices. So
there must be no end of such words: those of Python's own manual, which every machine has, behind
what requests begin with.
"""

from __future__ import annotations

import pydoc_data.topics
import random
import re
from functools import cache

from models.recipe import phrases
from models.recipe.dialogues import Said, all_texts, out_of_domain

FOREIGN_SHARE = 0.15
REQUEST_SHARE = 0.45
NUM_KNOWN_CONVERSATIONS = 1000  # after so many there is hardly a new word in them
BEGINNINGS = (
    *("", "", "tell me", "what is the", "play", "i want", "how do i", "please", "show me", "who"),
    *("can you", "do you know", "where is the", "set the", "turn on", "give me a", "is it", "my"),
)


def strange(chance: random.Random) -> Said:
    """Something said that is of no use, in words that the model may know or not."""
    draw = chance.random()
    if draw < FOREIGN_SHARE:
        language = chance.choice(list(phrases.FOREIGN))
        known = phrases.FOREIGN[language]
        text = chance.choice(known[: 2 * len(known) // 3])
        return Said(text=text, sound="foreign", language=language)
    if draw < FOREIGN_SHARE + REQUEST_SHARE:
        return Said(text=out_of_domain(chance, "train"))
    words = chance.sample(_strange_words(), chance.randint(1, 4))
    return Said(text=" ".join([chance.choice(BEGINNINGS), *words]).strip())


@cache
def _strange_words() -> list[str]:
    found = re.findall(r"\b[a-z]{4,11}\b", " ".join(pydoc_data.topics.topics.values()))
    known = {word for text in all_texts(NUM_KNOWN_CONVERSATIONS) for word in text.lower().split()}
    return sorted(set(found) - known)
