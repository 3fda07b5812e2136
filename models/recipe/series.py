"""Series of questions about one scene, and about what changes from picture to picture.

A picture is worth many questions: asked one after the other they teach several times as much a
token as one question a picture does, and people go on asking, too. Part of
`models.recipe.dialogues`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from models.recipe import phrases
from models.recipe.grammar import Split
from models.recipe.pictures import Scene, Thing, random_thing
from models.recipe.seeing import (
    MAX_COUNT,
    Asked,
    View,
    ask_change,
    ask_colour,
    ask_digit,
    ask_number,
    ask_shape,
    ask_side,
    ask_thing,
    ask_where,
    changed,
    one_thing,
    unchanged,
)

CHANGES_SHARE = 0.45
CROWD_SHARE = 0.65  # of series about one scene
MAX_THINGS = 8
MAX_CHANGES = 3
ONE_SHARE = 0.75  # of series of changes: there is only one, between two pictures
SAME_SHARE = 0.15  # of pictures: nothing has changed, which is the hardest to tell
BOTH_SHARE = 0.8  # of series of changes: the first two pictures come together


def series(chance: random.Random, split: Split) -> list[View]:
    """Questions in order; where one has no scenes, it is about the last one's."""
    if chance.random() < CHANGES_SHARE:
        return _changes(chance, split)
    if chance.random() < CROWD_SHARE:
        return _questions(*_crowd(chance, split))
    return _questions(*chance.choice((_single, _pair, _pair, _printed))(chance, split))


def _questions(scene: Scene, asked: list[Asked]) -> list[View]:
    scenes = [(scene,), *[()] * (len(asked) - 1)]
    return [
        View(prompt=prompt, scenes=shown, reply=reply)
        for shown, (prompt, reply) in zip(scenes, asked, strict=True)
    ]


def _crowd(chance: random.Random, split: Split) -> tuple[Scene, list[Asked]]:
    """How many there are of each shape."""
    shapes = chance.sample(phrases.SHAPES, chance.choice((1, 2, 2, 3)))
    things: list[Thing] = []
    for number, shape in enumerate(shapes):
        room = MAX_THINGS - len(things) - (len(shapes) - 1 - number)
        count = chance.randint(1, min(MAX_COUNT, room))
        things += [replace(random_thing(chance), shape=shape) for _ in range(count)]
    chance.shuffle(things)
    asked = [ask_number(chance, split, things, shape) for shape in shapes]
    return Scene(things=tuple(things)), asked


def _single(chance: random.Random, split: Split) -> tuple[Scene, list[Asked]]:
    thing = one_thing(chance)
    asked = [
        ask_colour(chance, split, thing),
        ask_shape(chance, split, thing),
        ask_thing(chance, split, (thing,)),
        ask_number(chance, split, (thing,), thing.shape),
    ]
    return Scene(things=(thing,)), chance.sample(asked, 3)


def _printed(chance: random.Random, split: Split) -> tuple[Scene, list[Asked]]:
    thing = replace(one_thing(chance), shape=str(chance.randint(0, 9)))
    asked = [ask_digit(chance, split, thing), ask_colour(chance, split, thing)]
    return Scene(things=(thing,)), chance.sample(asked, 2)


def _pair(chance: random.Random, split: Split) -> tuple[Scene, list[Asked]]:
    left, right = random_thing(chance, "left"), random_thing(chance, "right")
    asked = [
        ask_side(chance, split, left, right),
        ask_side(chance, split, left, right),
        ask_thing(chance, split, (left, right)),
    ]
    if left.shape != right.shape:
        asked += [ask_where(chance, split, thing) for thing in (left, right)]
    return Scene(things=(left, right)), chance.sample(asked, 3)


def _changes(chance: random.Random, split: Split) -> list[View]:
    """One thing, which becomes something else from picture to picture until it is gone."""
    thing = one_thing(chance)
    shown: list[Scene] = [Scene(things=(thing,))]
    views: list[View] = []
    if chance.random() >= BOTH_SHARE:
        ask: Callable[[random.Random, Split, Thing], Asked] = chance.choice((ask_colour, ask_shape))
        views += _questions(shown.pop(), [ask(chance, split, thing)])
    num = 1 if chance.random() < ONE_SHARE else chance.randint(2, MAX_CHANGES)
    for _ in range(num):
        is_same = chance.random() < SAME_SHARE
        after, told = unchanged(thing) if is_same else changed(chance, thing)
        prompt, reply = ask_change(chance, split, told)
        views.append(View(prompt=prompt, scenes=(*shown, Scene(things=after)), reply=reply))
        shown = []
        if not after:
            break
        (thing,) = after
    return views
