"""Questions about what the camera sees, with the scenes and the right answers.

Each kind draws the scenes first, then asks, then answers from the scene.
`models.recipe.series` asks several questions about one. Part of `models.recipe.dialogues`; draws
no pixels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.recipe import phrases
from models.recipe.grammar import Split
from models.recipe.pictures import Place, Scene, Thing, moved, random_thing
from models.recipe.prompts import drawn_prompt

MAX_COUNT = 6
Asked = tuple[str, str]  # what is asked, and the answer


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


def one_thing(chance: random.Random) -> Thing:
    """Any thing, as a rule in the middle."""
    return random_thing(chance, chance.choice(("left", "middle", "middle", "right")))


def _colour(chance: random.Random, split: Split) -> View:
    thing = one_thing(chance)
    if chance.random() < 0.25:
        thing = replace(thing, shape=str(chance.randint(0, 9)))
    return _shown(ask_colour(chance, split, thing), thing)


def _shape(chance: random.Random, split: Split) -> View:
    thing = one_thing(chance)
    return _shown(ask_shape(chance, split, thing), thing)


def _thing(chance: random.Random, split: Split) -> View:
    prompt = drawn_prompt(chance, phrases.SEE_THING, split)
    things: tuple[Thing, ...] = ()
    if chance.random() >= 0.1:
        if chance.random() < 0.5:
            things = (one_thing(chance),)
        else:
            things = (random_thing(chance, "left"), random_thing(chance, "right"))
    return _shown((prompt, _what_is_seen(things)), *things)


def _number(chance: random.Random, split: Split) -> View:
    """How many things, or how many of one shape among others."""
    shape = chance.choice(phrases.SHAPES)
    count = chance.randint(1, MAX_COUNT)
    others = 0 if chance.random() < 0.6 else chance.randint(1, 2)
    things = [replace(random_thing(chance), shape=shape) for _ in range(count)]
    different = [other for other in phrases.SHAPES if other != shape]
    things += [replace(random_thing(chance), shape=chance.choice(different)) for _ in range(others)]
    return _shown(ask_number(chance, split, things, shape), *things)


def _side(chance: random.Random, split: Split) -> View:
    left, right = random_thing(chance, "left"), random_thing(chance, "right")
    return _shown(ask_side(chance, split, left, right), left, right)


def _where(chance: random.Random, split: Split) -> View:
    left, right = random_thing(chance, "left"), random_thing(chance, "right")
    while right.shape == left.shape:
        right = random_thing(chance, "right")
    return _shown(ask_where(chance, split, chance.choice((left, right))), left, right)


def _digit(chance: random.Random, split: Split) -> View:
    digit = chance.randint(0, 9)
    thing = replace(one_thing(chance), shape=str(digit))
    return _shown(ask_digit(chance, split, thing), thing)


def _change(chance: random.Random, split: Split) -> View:
    before = one_thing(chance)
    after, told = changed(chance, before)
    prompt, reply = ask_change(chance, split, told)
    scenes = (Scene(things=(before,)), Scene(things=after))
    return View(prompt=prompt, scenes=scenes, reply=reply)


def _shown(asked: Asked, *things: Thing) -> View:
    prompt, reply = asked
    return View(prompt=prompt, scenes=(Scene(things=things),), reply=reply)


# --------------------------------------------------------------------------------- questions
def ask_colour(chance: random.Random, split: Split, thing: Thing) -> Asked:
    """The colour of the only thing."""
    return drawn_prompt(chance, phrases.SEE_COLOUR, split), f"It is {thing.colour}."


def ask_shape(chance: random.Random, split: Split, thing: Thing) -> Asked:
    """The shape of the only thing."""
    return drawn_prompt(chance, phrases.SEE_SHAPE, split), f"It is a {thing.shape}."


def ask_digit(chance: random.Random, split: Split, thing: Thing) -> Asked:
    """The printed digit, which is the only thing."""
    prompt = drawn_prompt(chance, phrases.SEE_DIGIT, split)
    return prompt, f"It is the number {phrases.NUMBERS[int(thing.shape)]}."


def ask_thing(chance: random.Random, split: Split, things: Sequence[Thing]) -> Asked:
    """What is to be seen: nothing, one thing, or one on the left and one on the right."""
    return drawn_prompt(chance, phrases.SEE_THING, split), _what_is_seen(things)


def ask_number(chance: random.Random, split: Split, things: Sequence[Thing], shape: str) -> Asked:
    """How many things there are of one shape; where there are no others, how many there are."""
    count = sum(thing.shape == shape for thing in things)
    word = f"{shape}s"
    if count == len(things) and chance.random() < 0.5:
        word = chance.choice(phrases.THINGS)
    prompt = drawn_prompt(chance, phrases.SEE_COUNT, split).format(word)
    return (
        prompt,
        f"I see {phrases.NUMBERS[count]} {word if count > 1 else word.removesuffix('s')}.",
    )


def ask_side(chance: random.Random, split: Split, left: Thing, right: Thing) -> Asked:
    """What is on the left, or on the right."""
    side = chance.choice(phrases.SIDES)
    asked = left if side == "left" else right
    prompt = drawn_prompt(chance, phrases.SEE_SIDE, split).format(side)
    return prompt, f"On the {side} is {_a(named(asked))}."


def ask_where(chance: random.Random, split: Split, asked: Thing) -> Asked:
    """On which side the only thing of its shape is."""
    prompt = drawn_prompt(chance, phrases.WHERE, split).format(asked.shape)
    return prompt, f"The {asked.shape} is on the {asked.place}."


def ask_change(chance: random.Random, split: Split, told: str) -> Asked:
    """What has changed since the picture before."""
    return drawn_prompt(chance, phrases.CHANGED, split), told


def ask_again(chance: random.Random, split: Split, scene: Scene) -> Asked:
    """A question that the scene answers, whatever has been asked about it."""
    things = scene.things
    kinds: list[Callable[[], Asked]] = [lambda: ask_thing(chance, split, things)]
    if len(things) == 1:
        (thing,) = things
        if thing.shape.isdigit():
            kinds = [lambda: ask_digit(chance, split, thing)]
        else:
            kinds.append(lambda: ask_shape(chance, split, thing))
        kinds.append(lambda: ask_colour(chance, split, thing))
    elif [thing.place for thing in things] == ["left", "right"]:
        kinds.append(lambda: ask_side(chance, split, *things))
    elif things:
        shape = chance.choice(sorted({thing.shape for thing in things}))
        kinds = [lambda: ask_number(chance, split, things, shape)]
    return chance.choice(kinds)()


def _what_is_seen(things: Sequence[Thing]) -> str:
    return f"I see {' and '.join(_a(named(thing)) for thing in things) or 'nothing'}."


# ----------------------------------------------------------------------------------- changes
def changed(chance: random.Random, before: Thing) -> tuple[tuple[Thing, ...], str]:
    """What a picture of one thing shows after some change, or none; and what has changed."""
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
            return unchanged(before)


def unchanged(before: Thing) -> tuple[tuple[Thing, ...], str]:
    """The same picture of one thing, and what is said of that."""
    return (before,), "Nothing has changed."


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


_KINDS: tuple[Callable[[random.Random, Split], View], ...] = (
    *(_colour, _shape, _thing, _number),
    *(_side, _where, _digit, _change),
)
_ASKED = (4, 2, 3, 4, 4, 2, 4, 4)  # how often, in the exam
_TRAINED = (2, 2, 4, 8, 5, 10, 6, 16)  # what is harder more often
