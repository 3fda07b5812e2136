"""Spoken sentences for learning to hear: sound, and the words as token ids.

Kept in shards of one work folder, made once from their number: prompts of conversations, sentences
that are repeated, words in any order, numbers, and speech of no use: what of it is not the model's
is UNKNOWN.
Stored are raw log-mel features; what changes from pass to pass is done to them
(`models.recipe.mel_noise`).
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from models.qwen3_omni.mel import LogMel
from models.recipe import acoustics, phrases, voices
from models.recipe.acting import MAX_NUMBER, spoken_number
from models.recipe.blended import blended
from models.recipe.dialogues import SKILLS, Past, Said, conversation
from models.recipe.grammar import Split
from models.recipe.prompts import drawn_prompt, small_talk
from models.recipe.speakers import spoken
from models.recipe.strange import strange

UNKNOWN = "?"  # stands for a word that is not the model's
UTTERANCES_PER_SHARD = 500
BLENDED_SHARE = 0.5  # of two voices
SHORT = ("call", "yes", "no")  # is heard over replies, and has to be told from noise
STRANGE_SHARE = 0.25  # not the model's
WORST_CASE_SHARE = 0.3  # made with all of `acoustics.Conditions`; the others are clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """Raw log-mel [bins, frames] float16, and the ids of its words."""

    mel: Tensor
    ids: tuple[int, ...]


def has_shard(folder: Path, number: int) -> bool:
    """Whether a shard was made already."""
    return _path(folder, number).exists()


def make_shard(folder: Path, number: int) -> None:
    """Make a shard where it is not there yet.

    Raises:
        CheckpointError: a synthesizer is not installed, or fails.
    """
    path = _path(folder, number)
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")  # others may make it as well
    torch.save(_spoken_shard(number), unfinished)
    unfinished.rename(path)


def load_shard(folder: Path, number: int, encode: Callable[[str], list[int]]) -> list[Utterance]:
    """The utterances of one shard, made where they are not there yet.

    Args:
        encode: words -> ids.

    Raises:
        CheckpointError: a synthesizer is not installed, or fails.
    """
    make_shard(folder, number)
    return [
        Utterance(mel=mel, ids=tuple(encode(text)))
        for mel, text in torch.load(_path(folder, number), weights_only=True)
    ]


def heard_as(said: Said) -> str:
    """What can be made out of it: its words, an UNKNOWN for each of another language, nothing of
    noise. An English one that is not the model's becomes UNKNOWN where words become ids.
    """
    if said.sound == "foreign" and said.language != "en":
        return " ".join(UNKNOWN for _ in said.text.split())
    return said.text


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:03}.pt"


def strange_clips(num: int, seed: int) -> list[Utterance]:
    """So many clips of speech that is not the model's; no words are told.

    Raises:
        CheckpointError: a synthesizer is not installed, or fails.
    """
    made = _clips(strange, num, random.Random(f"strange {seed}"))
    return [Utterance(mel=mel, ids=()) for mel, _ in made]


def _spoken_shard(number: int) -> list[tuple[Tensor, str]]:
    return _clips(_said, UTTERANCES_PER_SHARD, random.Random(f"utterances {number}"))


def _clips(
    draw: Callable[[random.Random], Said], num: int, chance: random.Random
) -> list[tuple[Tensor, str]]:
    """Features and words of so many clips."""
    log_mel = LogMel()
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(num):
            said = draw(chance)
            is_hard = chance.random() < WORST_CASE_SHARE
            conditions = acoustics.Conditions() if is_hard else acoustics.CLEAN
            voice = voices.random_voice(chance)
            raw = log_mel.raw_clip(spoken(said, voice, chance, conditions, Path(scratch)))
            if said.sound == "speech" and chance.random() < BLENDED_SHARE:
                other = voices.random_voice(chance)
                pcm = spoken(said, other, chance, acoustics.CLEAN, Path(scratch))
                raw = blended(raw, log_mel.raw_clip(pcm), chance.uniform(-0.3, 0.7))
            made.append((raw.half(), heard_as(said)))
    return made


def _said(chance: random.Random) -> Said:
    """Of what is said in a conversation, more of what must be told apart without its neighbours."""
    if chance.random() < STRANGE_SHARE:
        return strange(chance)
    draw = chance.random()
    if draw < 0.08:
        return _first_said("reject", chance)
    if draw < 0.2:
        return _first_said("repeat", chance)
    if draw < 0.34:
        words = [
            word
            for prompt in (random_prompt(chance, "train"), random_prompt(chance, "train"))
            for word in prompt.split()
        ]
        return Said(text=" ".join(chance.sample(words, min(len(words), chance.randint(1, 6)))))
    if draw < 0.44:
        numbers = (
            spoken_number(chance.randint(0, MAX_NUMBER)) for _ in range(chance.randint(1, 3))
        )
        return Said(text=" ".join(numbers))
    if draw < 0.6:
        return Said(text=_told(chance))
    if draw < 0.68:
        return Said(text=chance.choice(small_talk(chance.choice(SHORT))))
    if draw < 0.74:
        return Said(text=" ".join(chance.sample(_words_of_small_talk(), chance.randint(1, 5))))
    return Said(text=random_prompt(chance, "train"))


def _told(chance: random.Random) -> str:
    """A name, or a large number: of each there are few in all that is said."""
    tells, *_ = phrases.MEMORY["name"]
    value = chance.choice(phrases.NAMES)
    if chance.random() < 0.35:
        tells, *_ = phrases.MEMORY["number"]
        tells = (*tells, *phrases.TIMER, *phrases.TEMPERATURE)
        value = spoken_number(chance.randint(1, MAX_NUMBER))
    return drawn_prompt(chance, tells, "train").format(value)


@cache
def _words_of_small_talk() -> list[str]:
    texts = (text for name in phrases.SMALL_TALK for text in small_talk(name))
    return sorted({word for text in texts for word in text.split()})


def random_prompt(chance: random.Random, split: Split) -> str:
    """What is said somewhere in a conversation."""
    said: list[str] = []
    while not said:
        turns = conversation(chance.getrandbits(31), split).turns
        said = [
            turn.text
            for turn in turns
            if isinstance(turn, Said) and turn.sound == "speech" and not turn.is_typed
        ]
    return chance.choice(said)


def _first_said(skill: str, chance: random.Random) -> Said:
    """What is said first, where it can be spoken."""
    while True:
        first = SKILLS[skill](chance, Past(), "train")[0]
        assert isinstance(first, Said)
        if not first.is_typed:
            return first
