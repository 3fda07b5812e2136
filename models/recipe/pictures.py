"""Drawn camera frames of simple objects, with the truth about them.

A `Scene` says what is there; `draw` makes one frame of it as a webcam would see it: a background
that is not plain, uneven light, a colour cast, defocus, sensor noise and JPEG blocks. Two frames of
the same scene differ like two moments of one camera when they share a `Camera`. Does not speak
of scenes (`models.recipe.dialogues`).
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from models.content import Rgb
from models.recipe.phrases import COLOURS, SHAPES

Place = Literal["left", "right", "middle"]

WIDTH, HEIGHT = 320, 240
SUPERSAMPLING = 2
CLOSE_SHARE = 0.25
# Centre of each named colour, and how far a sample of it may stray (hue in degrees; 0..1, 0..1).
_COLOURS: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "red": ((357, 0.88, 0.80), (7, 0.10, 0.15)),
    "orange": ((29, 0.92, 0.95), (5, 0.07, 0.05)),
    "yellow": ((54, 0.85, 0.95), (5, 0.12, 0.05)),
    "green": ((125, 0.75, 0.60), (22, 0.20, 0.18)),
    "blue": ((219, 0.82, 0.75), (14, 0.15, 0.18)),
    "purple": ((282, 0.68, 0.62), (11, 0.17, 0.14)),
    "black": ((0, 0.06, 0.07), (180, 0.06, 0.06)),
    "white": ((40, 0.03, 0.97), (40, 0.03, 0.03)),
}
_LIGHT_NEEDED = {"white": "dark", "black": "light"}  # what the background must be


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One object: a shape of SHAPES, or a printed digit on a card, and where it lies."""

    shape: str
    colour: str
    place: Place = "middle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a camera sees; no things is an empty room."""

    things: tuple[Thing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What stays the same between frames of one camera: background, light, optics, and a seed."""

    seed: int
    darkness: float
    cast: tuple[float, float, float]
    gradient: tuple[float, float]
    blur: float
    noise: float
    quality: int


def new_camera(chance: random.Random, scenes: tuple[Scene, ...]) -> Camera:
    """A camera in whose picture every thing of `scenes` stands out from the background."""
    needed = {_LIGHT_NEEDED.get(thing.colour) for scene in scenes for thing in scene.things}
    darkness = chance.uniform(0.15, 0.85)
    if "dark" in needed and "light" in needed:
        darkness = chance.uniform(0.45, 0.55)
    elif "dark" in needed:
        darkness = chance.uniform(0.5, 0.9)
    elif "light" in needed:
        darkness = chance.uniform(0.1, 0.45)
    return Camera(
        seed=chance.getrandbits(32),
        darkness=darkness,
        cast=tuple(chance.uniform(0.93, 1.07) for _ in range(3)),  # type: ignore[arg-type]
        gradient=(chance.uniform(-0.2, 0.2), chance.uniform(-0.2, 0.2)),
        blur=chance.uniform(0.0, 1.3),
        noise=chance.uniform(0.0, 10.0),
        quality=chance.randint(40, 92),
    )


def draw(scene: Scene, camera: Camera, *, moment: int = 0) -> Rgb:
    """One frame, [240, 320, 3] uint8; `moment` numbers the frames of a camera."""
    chance = random.Random(f"{camera.seed} things")
    canvas = _background(camera).copy()
    for thing, (x, y, size) in zip(scene.things, places(scene, camera), strict=True):
        jitter = random.Random(f"{camera.seed} {moment} {thing}")
        x, y = x + jitter.uniform(-2, 2), y + jitter.uniform(-2, 2)
        _draw_thing(canvas, chance, thing, (x, y, size))
    return _photographed(canvas, camera, moment)


def places(scene: Scene, camera: Camera) -> list[tuple[float, float, float]]:
    """Centre and radius of each thing in pixels, but for the trembling between frames."""
    return _layout(random.Random(f"{camera.seed} layout"), scene)


def random_thing(chance: random.Random, place: Place = "middle") -> Thing:
    """Any shape in any colour."""
    return Thing(shape=chance.choice(SHAPES), colour=chance.choice(COLOURS), place=place)


def moved(thing: Thing, place: Place) -> Thing:
    """The same thing elsewhere."""
    return replace(thing, place=place)


# ------------------------------------------------------------------------------------ where
def _layout(chance: random.Random, scene: Scene) -> list[tuple[float, float, float]]:
    """Centre and radius of each thing, without overlap, left things left of right things.

    A square alone may be so near that it fills the picture.
    """
    alone = [(thing.shape, thing.place) for thing in scene.things]
    if alone == [("square", "middle")] and chance.random() < CLOSE_SHARE:
        return [(WIDTH / 2, HEIGHT / 2, chance.uniform(70.0, 230.0))]
    by_place: dict[Place, list[int]] = {"left": [], "middle": [], "right": []}
    for index, thing in enumerate(scene.things):
        by_place[thing.place].append(index)
    found: dict[int, tuple[float, float, float]] = {}
    bands = {"left": (0.06, 0.42), "middle": (0.15, 0.85), "right": (0.58, 0.94)}
    if len(scene.things) == 1:  # so that it can go to either side, and be seen to have gone
        bands["middle"] = (0.3, 0.7)
    for place, indexes in by_place.items():
        left, right = (WIDTH * share for share in bands[place])
        centres = _spread(chance, len(indexes), (left, right))
        found.update(zip(indexes, centres, strict=True))
    return [found[index] for index in range(len(scene.things))]


def _spread(
    chance: random.Random, count: int, band: tuple[float, float]
) -> list[tuple[float, float, float]]:
    """`count` circles in a part of the picture: cells of a grid, jittered inside."""
    if not count:
        return []
    width, height = band[1] - band[0], HEIGHT * 0.88
    columns = max(1, round(math.sqrt(count * width / height)))
    rows = -(-count // columns)
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    chosen = chance.sample(cells, count)
    side = min(width / columns, height / rows)
    made = []
    for row, column in chosen:
        radius = min(side * chance.uniform(0.27, 0.42), 70.0)
        slack_x, slack_y = width / columns / 2 - radius, height / rows / 2 - radius
        x = band[0] + (column + 0.5) * width / columns + chance.uniform(-0.8, 0.8) * slack_x
        y = 0.06 * HEIGHT + (row + 0.5) * height / rows + chance.uniform(-0.8, 0.8) * slack_y
        made.append((x, y, radius))
    return made


# ------------------------------------------------------------------------------------ what
def _draw_thing(
    canvas: Image.Image,
    chance: random.Random,
    thing: Thing,
    place: tuple[float, float, float],
) -> None:
    x, y, radius = place
    left, top = math.floor(x - 1.5 * radius), math.floor(y - 1.5 * radius)
    side = SUPERSAMPLING * math.ceil(3 * radius + 2)
    stencil = Image.new("L", (side, side))  # drawn larger, for smooth edges
    pen = ImageDraw.Draw(stencil)
    middle_x, middle_y = SUPERSAMPLING * (x - left), SUPERSAMPLING * (y - top)
    length = SUPERSAMPLING * radius
    colour = _sample(chance, thing.colour)
    if thing.shape in _OUTLINES:
        angle = chance.uniform(-0.2, 0.2)
        points = [
            (
                middle_x + length * (a * math.cos(angle) - b * math.sin(angle)),
                middle_y + length * (a * math.sin(angle) + b * math.cos(angle)),
            )
            for a, b in _OUTLINES[thing.shape]()
        ]
        pen.polygon(points, fill=255)
    else:
        card = _sample(chance, "black" if thing.colour == "white" else "white")
        box = (x - radius, y - radius, x + radius, y + radius)
        ImageDraw.Draw(canvas).rectangle(box, fill=card)
        font = _font(round(length * chance.uniform(1.2, 1.7)))
        pen.text((middle_x, middle_y), thing.shape, fill=255, font=font, anchor="mm")
    canvas.paste(colour, (left, top), stencil.reduce(SUPERSAMPLING))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _circle() -> list[tuple[float, float]]:
    steps = [2 * math.pi * k / 48 for k in range(48)]
    return [(math.cos(step), math.sin(step)) for step in steps]


def _square() -> list[tuple[float, float]]:
    return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]


def _triangle() -> list[tuple[float, float]]:
    return [(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)]


def _star() -> list[tuple[float, float]]:
    points = []
    for k in range(10):
        radius, step = (1.0 if k % 2 == 0 else 0.42), math.pi * k / 5
        points.append((radius * math.sin(step), -radius * math.cos(step)))
    return points


_OUTLINES: Mapping[str, Callable[[], list[tuple[float, float]]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}


def _sample(chance: random.Random, name: str) -> tuple[int, int, int]:
    centre, spread = _COLOURS[name]
    hue, saturation, value = (
        middle + chance.uniform(-width, width) for middle, width in zip(centre, spread, strict=True)
    )
    return _rgb(hue / 360.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """HSV in 0..1 (hue in turns) -> 0..255."""
    levels = []
    for offset in (5, 3, 1):
        k = (offset + hue * 6) % 6
        levels.append(value - value * saturation * max(0.0, min(k, 4 - k, 1)))
    red, green, blue = (round(255 * level) for level in levels)
    return red, green, blue


# ------------------------------------------------------------------------------------ camera
@lru_cache(maxsize=64)
def _background(camera: Camera) -> Image.Image:
    """A wall of a dull colour with furniture-like edges, in greys that are no named colour."""
    chance = random.Random(camera.seed)
    value = 0.92 - 0.72 * camera.darkness
    hue = chance.random()
    canvas = Image.new("RGB", (WIDTH, HEIGHT), _rgb(hue, chance.uniform(0.0, 0.14), value))
    pen = ImageDraw.Draw(canvas)
    for _ in range(chance.randint(0, 5)):
        shade = value + chance.uniform(-0.09, 0.09)
        colour = _rgb(hue, chance.uniform(0.0, 0.14), min(0.95, max(0.12, shade)))
        x, y = chance.uniform(-0.2, 1.0) * WIDTH, chance.uniform(-0.2, 1.0) * HEIGHT
        right, bottom = x + chance.uniform(0.1, 0.9) * WIDTH, y + chance.uniform(0.1, 0.9) * HEIGHT
        pen.rectangle((x, y, right, bottom), fill=colour)
    return canvas.filter(ImageFilter.GaussianBlur(chance.uniform(0.2, 3.0)))


def _photographed(picture: Image.Image, camera: Camera, moment: int) -> Rgb:
    blurred = picture.filter(ImageFilter.GaussianBlur(camera.blur)) if camera.blur else picture
    values = np.asarray(blurred, dtype=np.float32)
    across = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :, None]
    down = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None, None]
    light = 1 + camera.gradient[0] * across + camera.gradient[1] * down
    values = values * light * np.array(camera.cast, dtype=np.float32)
    generator = np.random.default_rng([camera.seed, moment])
    noise = generator.standard_normal(values.shape, dtype=np.float32)
    values = np.clip(values + np.float32(camera.noise) * noise, 0, 255)
    stream = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "JPEG", quality=camera.quality)
    return np.asarray(Image.open(stream).convert("RGB"), dtype=np.uint8)
