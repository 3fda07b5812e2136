"""Drawn frames: what the scene says is what the pixels show."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from models.recipe.phrases import COLOURS, SHAPES
from models.recipe.pictures import HEIGHT, WIDTH, Camera, Scene, Thing, draw, new_camera

PLAIN = Camera(
    seed=3,
    darkness=0.5,
    cast=(1.0, 1.0, 1.0),
    gradient=(0.0, 0.0),
    blur=0.0,
    noise=0.0,
    quality=92,
)
RULES = {
    "red": lambda r, g, b: (r > 130) & (g < 70) & (b < 80),
    "green": lambda r, g, b: (g > r + 40) & (g > b + 20),
    "blue": lambda r, g, b: (b > r + 60) & (b > g + 30),
}


@pytest.mark.parametrize("colour", RULES)
@pytest.mark.parametrize("place", ["left", "right"])
def test_colour_and_side(colour: str, place: str) -> None:
    for seed in range(5):
        thing = Thing(shape="square", colour=colour, place=place)  # type: ignore[arg-type]
        rgb = draw(Scene(things=(thing,)), replace(PLAIN, seed=seed)).astype(int)
        painted = RULES[colour](rgb[..., 0], rgb[..., 1], rgb[..., 2])
        half = painted[:, : WIDTH // 2] if place == "left" else painted[:, WIDTH // 2 :]
        assert painted.sum() > 300
        assert half.sum() > 0.95 * painted.sum()


def test_things_do_not_overlap() -> None:
    """Six red squares make as many islands of red."""
    things = tuple(Thing(shape="square", colour="red") for _ in range(6))
    rgb = draw(Scene(things=things), PLAIN).astype(int)
    red = RULES["red"](rgb[..., 0], rgb[..., 1], rgb[..., 2])
    assert _num_islands(red) == 6


def test_frames_of_a_camera_are_alike_and_reproducible() -> None:
    chance = random.Random(1)
    scene = Scene(things=(Thing(shape="star", colour="blue"),))
    camera = new_camera(chance, (scene,))
    first = draw(scene, camera)
    assert first.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(first, draw(scene, camera))
    again = draw(scene, camera, moment=1)
    assert not np.array_equal(first, again)
    assert np.abs(first.astype(int) - again).mean() < 15


@pytest.mark.parametrize("shape", [*SHAPES, "7"])
@pytest.mark.parametrize("colour", COLOURS)
def test_everything_stands_out(shape: str, colour: str) -> None:
    """A frame with the thing differs from one without by more than its noise."""
    scene = Scene(things=(Thing(shape=shape, colour=colour),))
    camera = replace(new_camera(random.Random(colour), (scene,)), noise=0.0)
    difference = np.abs(draw(scene, camera).astype(int) - draw(Scene(), camera)).max(axis=2)
    assert (difference > 40).sum() > 100


def _num_islands(mask: np.ndarray) -> int:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        queue, size = [left.pop()], 0
        while queue:
            y, x = queue.pop()
            size += 1
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    queue.append(near)
        count += size > 30
    return count
