"""Conversations as the thinker gets them: messages with sound and pictures, and what to learn.

A lesson is reproducible from its seed and the epoch: the seed chooses the conversation, the voices
and who types, the epoch rooms, noise and cameras. An imagined lesson has silence of about the right
length and no pictures in their place: what is heard and seen there is written by
`models.recipe.imagined`. Encodes nothing.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.content import Audio, Image, Message, Part, Pcm, Rgb, Text
from models.recipe import acoustics, phrases, voices
from models.recipe.acting import TOOLS, spoken_number
from models.recipe.dialogues import (
    Answered,
    Conversation,
    Drill,
    Returned,
    Said,
    conversation,
)
from models.recipe.grammar import Split
from models.recipe.pictures import Camera, Scene, draw, new_camera, random_thing
from models.recipe.speakers import spoken
from models.recipe.utterances import heard_as
from models.recipe.voices import Voice

FRAME_SLOT_S = 0.5
TYPED_SHARE = 0.15
LOOKS_ON_SHARE = 0.12  # of other talk: a camera shows something that was not asked for
SENT_SHARE = 0.5  # of what is seen: pictures that were sent, in place of a camera
INSTRUCTED_SHARE = 0.6
FEW_SHARE = 0.6  # of conversations with tools: not all are offered
OWN_INSTRUCTIONS_SHARE = 0.25  # of those: somebody's own, in words that are bytes to the model
DIGITS_SHARE = 0.5  # of what is not typed as it is spoken
AMERICAN_SHARE = 0.4  # of what is typed
LOWER_SHARE = 0.8  # of what is typed as it is spoken: names, too, begin small
SPOKEN = {spoken_number(number): number for number in range(60)}
NUMBER = re.compile(rf"\b({'|'.join(sorted(SPOKEN, key=len, reverse=True))})\b")
QUESTION_WORDS = ("what", "which", "how", "who", "where", "can", "do", "are", "is", "on")
IMAGINED_SHAPE = (192, 256, 3)  # what a frame is resized to
TERSE_TYPED_SHARE = 0.8
FEW_TOKENS = (
    (64, 128, 3),
    (96, 128, 3),
    (64, 160, 3),
    (128, 128, 3),
)  # where there is little to see
MORE_TOKENS = ((160, 224, 3), (192, 256, 3))
SECONDS_PER_LETTER = (0.055, 0.085)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a camera sees from a time on, in seconds of the message's sound."""

    from_s: float
    scene: Scene
    camera: Camera


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A user's message.

    Attributes:
        words: what can be made out of its sound; None where it was typed.
        views: what its pictures show, in order; of a typed message one for each picture.
    """

    message: Message
    words: str | None
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Turns in order: what is heard, what a tool gave, what is to be answered."""

    turns: tuple[Heard | Returned | Answered, ...]
    instructions: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Classroom:
    """What lessons are made of.

    Attributes:
        voice: draws the voice of a conversation. conditions: of its sound.
        folder: where synthesised sentences are kept; None: lessons are imagined.
        is_drawn: an imagined lesson's pictures are drawn nevertheless.
        drill: what is practised; None: everything, as people mix it.
    """

    split: Split
    voice: Callable[[random.Random], Voice]
    conditions: acoustics.Conditions
    folder: Path | None
    drill: Drill | None = None
    is_drawn: bool = False

    @property
    def is_terse(self) -> bool:
        """As a rule typed, with small pictures, all by one camera."""
        return self.drill is not None and self.drill.is_terse


def training_room(
    folder: Path | None, drill: Drill | None = None, *, is_drawn: bool = False
) -> Classroom:
    """Seen voices, training sentences, every kind of noise; imagined without a folder."""
    return Classroom(
        split="train",
        voice=voices.random_voice,
        conditions=acoustics.Conditions(),
        folder=folder,
        drill=drill,
        is_drawn=is_drawn,
    )


def exam_room(
    folder: Path | None, *, has_unseen_voices: bool, snr_db: float | None = None
) -> Classroom:
    """Held-out sentences: clean, or in noise so much below the speech."""
    conditions = acoustics.CLEAN if snr_db is None else acoustics.in_noise(snr_db)
    return Classroom(
        split="held_out",
        voice=unseen_voice if has_unseen_voices else voices.random_voice,
        conditions=conditions,
        folder=folder,
    )


def lesson(room: Classroom, seed: int, epoch: int, *, system: str | None = None) -> Lesson:
    """The lesson of this seed.

    Args:
        system: seed of instructions and order of tools, for lessons that shall begin alike.

    Raises:
        CheckpointError: a synthesizer is not installed, or fails.
    """
    about_tools = random.Random(f"tools {seed} {epoch}" if system is None else f"{system} tools")
    tools = _offered(about_tools)
    names = tuple(str(tool["function"]["name"]) for tool in tools)
    found = conversation(seed, room.split, room.drill, names)
    fixed = random.Random(f"voices {room.split} {seed}")
    fresh = random.Random(f"acoustics {room.split} {seed} {epoch}")
    voice = room.voice(fixed)
    typed_share = TERSE_TYPED_SHARE if room.is_terse else TYPED_SHARE
    camera = new_camera(fresh, _all_scenes(found)) if room.is_terse else None
    looks_on = 0.0 if found.is_dark else LOOKS_ON_SHARE
    turns: list[Heard | Returned | Answered] = []
    for turn in found.turns:
        if isinstance(turn, Said):
            draw = fixed.random()
            is_typed = turn.is_typed or (turn.sound != "noise" and draw < typed_share)
            turns += (
                [_typed(turn, room, fresh, camera)]
                if is_typed
                else _heard(turn, room, voice, fresh, camera, looks_on=looks_on)
            )
        else:
            turns.append(turn)
    about_system = fresh if system is None else random.Random(f"{system} {bool(found.offered)}")
    return Lesson(
        turns=tuple(turns),
        instructions=_instructions(about_system),
        tools=tools if found.offered else (),
    )


def _all_scenes(found: Conversation) -> tuple[Scene, ...]:
    return tuple(s for turn in found.turns if isinstance(turn, Said) for s in turn.scenes)


def _offered(chance: random.Random) -> tuple[Mapping[str, Any], ...]:
    """All tools in some order, or some of them."""
    order = chance.sample(TOOLS, len(TOOLS))
    some = order[: chance.randint(1, len(TOOLS) - 1)] if chance.random() < FEW_SHARE else order
    return tuple(some)


def _instructions(chance: random.Random) -> str:
    """None, some that are always the same, or text that means nothing to the model."""
    if chance.random() >= INSTRUCTED_SHARE:
        return ""
    usual = chance.choice(phrases.INSTRUCTIONS)
    if chance.random() >= OWN_INSTRUCTIONS_SHARE:
        return usual
    words = usual.split()
    for _ in range(chance.randint(2, 8)):
        letters = chance.choices(string.ascii_lowercase, k=chance.randint(3, 9))
        words.insert(chance.randint(0, len(words)), "".join(letters))
    return " ".join(words)


def _typed(said: Said, room: Classroom, chance: random.Random, camera: Camera | None) -> Heard:
    """The newest picture, then the words."""
    camera = camera or new_camera(chance, said.scenes)
    views = tuple(View(from_s=float(i), scene=s, camera=camera) for i, s in enumerate(said.scenes))
    parts: list[Part] = [Image(rgb=_frame(view, room, moment)) for moment, view in enumerate(views)]
    parts.append(Text(text=_written(said.text, chance)))
    return Heard(message=Message(role="user", parts=tuple(parts)), words=None, views=views)


def _written(text: str, chance: random.Random) -> str:
    """As people type it: as it is spoken, or with a capital, a sign at its end, and digits."""
    if chance.random() < AMERICAN_SHARE:
        text = text.replace("colour", "color").replace("favourite", "favorite")
    if chance.random() < 0.4:
        return text.lower() if chance.random() < LOWER_SHARE else text
    words = ["I" if word == "i" else word for word in text.split()]
    joined = " ".join(words)
    if chance.random() < DIGITS_SHARE:
        joined = in_digits(joined)
        if chance.random() < 0.5:
            joined = joined.replace(" plus ", " + ").replace(" minus ", " - ")
            joined = joined.replace(" times ", " * ").replace(" divided by ", " / ")
    if joined and chance.random() < 0.8:
        joined = joined[0].upper() + joined[1:]
    is_question = bool(words) and words[0] in QUESTION_WORDS
    return joined + chance.choice(("?", "?", "") if is_question else (".", "!", "", ""))


def in_digits(text: str) -> str:
    """`set it to twenty one` -> `set it to 21`."""
    return NUMBER.sub(lambda found: str(SPOKEN[found[0]]), text)


def _heard(
    said: Said,
    room: Classroom,
    voice: Voice,
    chance: random.Random,
    camera: Camera | None,
    *,
    looks_on: float,
) -> list[Heard]:
    """Sound, with the camera's frames or behind pictures that were sent as messages before it.

    looks_on: how often a camera shows what was not asked for.
    """
    if room.folder is None:
        seconds = chance.uniform(0.3, 0.9) + len(said.text) * chance.uniform(*SECONDS_PER_LETTER)
        pcm = _silence(seconds)
    else:
        pcm = spoken(said, voice, chance, room.conditions, room.folder)
    scenes = said.scenes
    if chance.random() < looks_on and not scenes:
        scenes = (Scene(things=(random_thing(chance),)),)
    words = heard_as(said)
    if scenes and chance.random() < SENT_SHARE:
        camera = camera or new_camera(chance, scenes)
        alone = Message(role="user", parts=(Audio(pcm=pcm),))
        return [
            *(_sent(scene, camera, room) for scene in scenes),
            Heard(message=alone, words=words),
        ]
    if len(scenes) > 1:  # time to show both
        pcm = np.concatenate([_silence(chance.uniform(1.0, 1.5)), pcm])
    views = _views(scenes, pcm, chance, camera)
    audio = Audio(pcm=pcm, frames=_frames(views, pcm, room))
    return [Heard(message=Message(role="user", parts=(audio,)), words=words, views=views)]


def _sent(scene: Scene, camera: Camera, room: Classroom) -> Heard:
    """A picture as a message of its own."""
    view = View(from_s=0.0, scene=scene, camera=camera)
    message = Message(role="user", parts=(Image(rgb=_frame(view, room, 0)),))
    return Heard(message=message, words=None, views=(view,))


def _views(
    scenes: tuple[Scene, ...], pcm: Pcm, chance: random.Random, camera: Camera | None
) -> tuple[View, ...]:
    """The scenes share the time, the last one has at least the last second."""
    if not scenes:
        return ()
    camera = camera or new_camera(chance, scenes)
    seconds = len(pcm) / voices.SAMPLE_RATE_HZ
    last = View(from_s=0.0, scene=scenes[-1], camera=camera)
    if len(scenes) == 1:
        return (last,)
    changes_s = max(1.0, float(np.floor(seconds / 2)))
    return (
        View(from_s=0.0, scene=scenes[0], camera=camera),
        View(from_s=changes_s, scene=scenes[-1], camera=camera),
    )


def view_at(views: tuple[View, ...], time_s: float) -> View:
    """The newest view at a time."""
    return [view for view in views if view.from_s <= time_s][-1]


def _frames(views: tuple[View, ...], pcm: Pcm, room: Classroom) -> tuple[tuple[float, Rgb], ...]:
    """Two frames a second."""
    if not views:
        return ()
    seconds = len(pcm) / voices.SAMPLE_RATE_HZ
    times = [
        moment * FRAME_SLOT_S for moment in range(max(1, int(np.ceil(seconds / FRAME_SLOT_S))))
    ]
    return tuple(
        (time_s, _frame(view_at(views, time_s), room, moment))
        for moment, time_s in enumerate(times)
    )


def _frame(view: View, room: Classroom, moment: int) -> Rgb:
    if room.folder is None and not room.is_drawn:
        return np.zeros(_imagined_shape(view, room), np.uint8)
    return draw(view.scene, view.camera, moment=moment)


def _imagined_shape(view: View, room: Classroom) -> tuple[int, int, int]:
    """In a terse room as few tokens as keep things apart; the same for all frames of a camera."""
    if not room.is_terse:
        return IMAGINED_SHAPE
    shapes = FEW_TOKENS if len(view.scene.things) < 3 else MORE_TOKENS
    return shapes[view.camera.seed % len(shapes)]


def _silence(seconds: float) -> Pcm:
    return np.zeros(round(seconds * voices.SAMPLE_RATE_HZ), np.float32)


def unseen_voice(chance: random.Random) -> Voice:
    """A voice that training never has."""
    return chance.choice(voices.UNSEEN)
