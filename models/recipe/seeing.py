"""Questions about what the camera sees, with the scenes and the right answers.

Each kind draws the scenes first, then asks, then answers from the scene. Part of
`models.recipe.dialogues`; draws no pixels.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from models.recipe import phrases
from models.recipe.grammar import Split, sentences
from models.recipe.pictures import Place, Scene, Thing, moved, random_thing

MAX_COUNT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A question, what is seen while it is asked (the newest last), and its answer."""

    prompt: str
    scenes: tuple[Scene, ...]
    reply: str


def seeing(chance: random.Random, split: Split) -> View:
    """A question of any kind."""
    kind = chance.choices(_KINDS, _TRAINED if split == "train" else _ASKED)[0]
    return kind(chance, split)


def named(thing: Thing) -> str:
    """`red circle`."""
    return f"{thing.colour} {thing.shape}"


def _one(chance: random.Random) -> Thing:
    return random_thing(chance, chance.choice(("left", "middle", "middle", "right")))


def _ask(chance: random.Random, patterns: tuple[str, ...], split: Split) -> str:
    return chance.choice(sentences(patterns, split))


def _colour(chance: random.Random, split: Split) -> View:
    thing = _one(chance)
    if chance.random() < 0.25:
        thing = replace(thing, shape=str(chance.randint(0, 9)))
    prompt = _ask(chance, phrases.SEE_COLOUR, split)
    return View(prompt=prompt, scenes=(Scene(things=(thing,)),), reply=f"It is {thing.colour}.")


def _shape(chance: random.Random, split: Split) -> View:
    thing = _one(chance)
    prompt = _ask(chance, phrases.SEE_SHAPE, split)
    return View(prompt=prompt, scenes=(Scene(things=(thing,)),), reply=f"It is a {thing.shape}.")


def _thing(chance: random.Random, split: Split) -> View:
    prompt = _ask(chance, phrases.SEE_THING, split)
    if chance.random() < 0.1:
        return View(prompt=prompt, scenes=(Scene(),), reply="I see nothing.")
    if chance.random() < 0.5:
        thing = _one(chance)
        return View(
            prompt=prompt, scenes=(Scene(things=(thing,)),), reply=f"I see {_a(named(thing))}."
        )
    left, right = random_thing(chance, "left"), random_thing(chance, "right")
    reply = f"I see {_a(named(left))} and {_a(named(right))}."
    return View(prompt=prompt, scenes=(Scene(things=(left, right)),), reply=reply)


def _number(chance: random.Random, split: Split) -> View:
    """How many things, or how many of one shape among others."""
    shape = chance.choice(phrases.SHAPES)
    count = chance.randint(1, MAX_COUNT)
    others = 0 if chance.random() < 0.6 else chance.randint(1, 2)
    things = [replace(random_thing(chance), shape=shape) for _ in range(count)]
    different = [other for other in phrases.SHAPES if other != shape]
    things += [replace(random_thing(chance), shape=chance.choice(different)) for _ in range(others)]
    word = chance.choice(phrases.THINGS) if not others and chance.random() < 0.5 else f"{shape}s"
    prompt = _ask(chance, phrases.SEE_COUNT, split).format(word)
    said = phrases.NUMBERS[count]
    reply = f"I see {said} {word if count > 1 else word.removesuffix('s')}."
    return View(prompt=prompt, scenes=(Scene(things=tuple(things)),), reply=reply)


def _side(chance: random.Random, split: Split) -> View:
    left, right = random_thing(chance, "left"), random_thing(chance, "right")
    side = chance.choice(phrases.SIDES)
    asked = left if side == "left" else right
    prompt = _ask(chance, phrases.SEE_SIDE, split).format(side)
    reply = f"On the {side} is {_a(named(asked))}."
    return View(prompt=prompt, scenes=(Scene(things=(left, right)),), reply=reply)


def _where(chance: random.Random, split: Split) -> View:
    left, right = random_thing(chance, "left"), random_thing(chance, "right")
    while right.shape == left.shape:
        right = random_thing(chance, "right")
    asked = chance.choice((left, right))
    prompt = _ask(chance, phrases.WHERE, split).format(asked.shape)
    reply = f"The {asked.shape} is on the {asked.place}."
    return View(prompt=prompt, scenes=(Scene(things=(left, right)),), reply=reply)


def _digit(chance: random.Random, split: Split) -> View:
    digit = chance.randint(0, 9)
    thing = replace(_one(chance), shape=str(digit))
    prompt = _ask(chance, phrases.SEE_DIGIT, split)
    reply = f"It is the number {phrases.NUMBERS[digit]}."
    return View(prompt=prompt, scenes=(Scene(things=(thing,)),), reply=reply)


def _change(chance: random.Random, split: Split) -> View:
    before = _one(chance)
    after, reply = _changed(chance, before)
    prompt = _ask(chance, phrases.CHANGED, split)
    scenes = (Scene(things=(before,)), Scene(things=after))
    return View(prompt=prompt, scenes=scenes, reply=reply)


def _changed(chance: random.Random, before: Thing) -> tuple[tuple[Thing, ...], str]:
    match chance.choice(("colour", "shape", "place", "gone", "nothing")):
        case "colour":
            colour = chance.choice([name for name in phrases.COLOURS if name != before.colour])
            reply = f"The {before.shape} was {before.colour} and now it is {colour}."
            return (replace(before, colour=colour),), reply
        case "shape":
            shape = chance.choice([name for name in phrases.SHAPES if name != before.shape])
            return (replace(before, shape=shape),), f"The {before.shape} is now a {shape}."
        case "place":
            side: Place = "right" if before.place == "left" else "left"
            return (moved(before, side),), f"The {before.shape} is now on the {side}."
        case "gone":
            return (), f"The {before.shape} is gone."
        case _:
            return (before,), "Nothing has changed."


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


_KINDS: tuple[Callable[[random.Random, Split], View], ...] = (
    *(_colour, _shape, _thing, _number),
    *(_side, _where, _digit, _change),
)
_ASKED = (4, 2, 3, 4, 4, 2, 4, 4)  # how often, in the exam
_TRAINED = (2, 2, 4, 8, 5, 10, 6, 16)  # what is harder more often
