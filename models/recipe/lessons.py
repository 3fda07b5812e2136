"""Conversations as the thinker gets them: messages with sound and pictures, and what to learn.

A lesson is reproducible from its seed and the epoch: the seed chooses the conversation, the voices
and who types, the epoch rooms, noise and cameras. Encodes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.content import Audio, Image, Message, Part, Pcm, Rgb, Text
from models.recipe import acoustics, voices
from models.recipe.dialogues import Answered, Returned, Said, conversation
from models.recipe.grammar import Split
from models.recipe.pictures import Scene, draw, new_camera, random_thing
from models.recipe.speakers import spoken
from models.recipe.voices import Voice

FRAME_SLOT_S = 0.5
TYPED_SHARE = 0.15
LOOKS_ON_SHARE = 0.15  # of other talk: a camera shows something that was not asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A user's message; `transcript` are the words of its sound, None where it has none."""

    message: Message
    transcript: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Turns in order: what is heard, what a tool gave, what is to be answered."""

    turns: tuple[Heard | Returned | Answered, ...]
    has_tools: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Classroom:
    """What lessons are made of.

    Attributes:
        voice: draws the voice of a conversation. conditions: of its sound.
        folder: where synthesised sentences are kept.
    """

    split: Split
    voice: Callable[[random.Random], Voice]
    conditions: acoustics.Conditions
    folder: Path


def training_room(folder: Path) -> Classroom:
    """Seen voices, training sentences, every kind of noise."""
    return Classroom(
        split="train",
        voice=voices.random_voice,
        conditions=acoustics.Conditions(),
        folder=folder,
    )


def exam_room(folder: Path, *, has_unseen_voices: bool) -> Classroom:
    """Held-out sentences, clean."""
    return Classroom(
        split="held_out",
        voice=_unseen_voice if has_unseen_voices else voices.random_voice,
        conditions=acoustics.CLEAN,
        folder=folder,
    )


def lesson(room: Classroom, seed: int, epoch: int) -> Lesson:
    """The lesson of this seed.

    Raises:
        CheckpointError: a synthesizer is not installed, or fails.
    """
    found = conversation(seed, room.split)
    fixed = random.Random(f"voices {room.split} {seed}")
    fresh = random.Random(f"acoustics {room.split} {seed} {epoch}")
    voice = room.voice(fixed)
    turns: list[Heard | Returned | Answered] = []
    for turn in found.turns:
        if isinstance(turn, Said):
            is_typed = turn.sound == "speech" and fixed.random() < TYPED_SHARE
            turns.append(_typed(turn, fresh) if is_typed else _heard(turn, room, voice, fresh))
        else:
            turns.append(turn)
    return Lesson(turns=tuple(turns), has_tools=found.has_tools)


def _typed(said: Said, chance: random.Random) -> Heard:
    """The newest picture, then the words."""
    parts: list[Part] = []
    camera = new_camera(chance, said.scenes)
    for moment, scene in enumerate(said.scenes):
        parts.append(Image(rgb=draw(scene, camera, moment=moment)))
    parts.append(Text(text=said.text))
    return Heard(message=Message(role="user", parts=tuple(parts)), transcript=None)


def _heard(said: Said, room: Classroom, voice: Voice, chance: random.Random) -> Heard:
    room_has_camera = not said.is_blind and chance.random() < LOOKS_ON_SHARE
    pcm = spoken(said, voice, chance, room.conditions, room.folder)
    scenes = said.scenes
    if room_has_camera and not scenes:
        scenes = (Scene(things=(random_thing(chance),)),)
    if len(scenes) > 1:  # time to show both
        silence = np.zeros(round(chance.uniform(1.0, 1.5) * voices.SAMPLE_RATE_HZ), np.float32)
        pcm = np.concatenate([silence, pcm])
    audio = Audio(pcm=pcm, frames=_frames(scenes, pcm, chance))
    transcript = said.text if said.sound == "speech" else None
    return Heard(message=Message(role="user", parts=(audio,)), transcript=transcript)


def _frames(
    scenes: tuple[Scene, ...], pcm: Pcm, chance: random.Random
) -> tuple[tuple[float, Rgb], ...]:
    """Two frames a second; the scenes share the time, the last one at least the last second."""
    if not scenes:
        return ()
    camera = new_camera(chance, scenes)
    seconds = len(pcm) / voices.SAMPLE_RATE_HZ
    last_from = max(1.0, np.floor(seconds / 2)) if len(scenes) > 1 else 0.0
    made = []
    for moment in range(max(1, int(np.ceil(seconds / FRAME_SLOT_S)))):
        time_s = moment * FRAME_SLOT_S
        scene = scenes[-1] if time_s >= last_from else scenes[0]
        made.append((time_s, draw(scene, camera, moment=moment)))
    return tuple(made)


def _unseen_voice(chance: random.Random) -> Voice:
    return chance.choice(voices.UNSEEN)
