"""Conversations' prompts as sound: the voice, the hesitation, the room of each are drawn by chance.

Joins `models.recipe.voices` and `models.recipe.acoustics`; the words are those of a `Said`.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from models.content import Pcm
from models.recipe import acoustics, voices
from models.recipe.dialogues import Said
from models.recipe.sound import trimmed
from models.recipe.voices import SAMPLE_RATE_HZ, Voice

HESITATIONS = ("um", "uh", "er", "well", "so")
PAUSE_SHARE = 0.12
HESITATION_SHARE = 0.10
FALSE_START_SHARE = 0.06


def spoken(
    said: Said,
    voice: Voice,
    chance: random.Random,
    conditions: acoustics.Conditions,
    folder: Path,
) -> Pcm:
    """A user's turn as the model hears it, at 16 kHz.

    Raises:
        CheckpointError: a synthesizer is not installed, or fails.
    """
    if said.sound == "noise":
        length = round(chance.uniform(0.5, 2.5) * SAMPLE_RATE_HZ)
        noise = acoustics.coloured_noise(length, chance)
        return acoustics.at_level(noise, chance.uniform(-40.0, -20.0))
    if said.language != "en":
        voice = voices.foreign_voice(said.language)
    parts = [
        trimmed(voices.say(part, voice, folder), SAMPLE_RATE_HZ) for part in _parts(said, chance)
    ]
    joined = acoustics.with_pauses(parts, chance) if len(parts) > 1 else parts[0]
    return acoustics.recorded(np.asarray(joined), chance, conditions)


def _parts(said: Said, chance: random.Random) -> list[str]:
    """The sentence as it comes out: whole, or with a pause, an `um`, or begun twice."""
    words = said.text.split()
    draw = chance.random()
    if len(words) < 3 or said.sound != "speech":
        return [said.text]
    cut = chance.randint(1, len(words) - 1)
    first, second = " ".join(words[:cut]), " ".join(words[cut:])
    if draw < PAUSE_SHARE:
        return [first, second]
    if draw < PAUSE_SHARE + HESITATION_SHARE:
        return [chance.choice(HESITATIONS), said.text]
    if draw < PAUSE_SHARE + HESITATION_SHARE + FALSE_START_SHARE:
        return [" ".join(words[: min(cut, 2)]), said.text]
    return [said.text]
