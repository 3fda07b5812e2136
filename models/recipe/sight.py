"""Learning to see: the vision encoder alone, from camera frames to the things in them.

The token where a thing's middle lies is to be the sum of the embeddings of its colour, its name and
its side of the picture, every other token the embedding of the placeholder: rows that the decoder
reads like words (`models.recipe.imagined`). A dense lesson: each frame says something about each of
its tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.qwen3_omni.images import patchify
from models.recipe import phrases
from models.recipe.hearing import SCALE
from models.recipe.imagined import grid_rows, marked_cells, side_ids, side_of, thing_ids
from models.recipe.learner import Learner
from models.recipe.lessons import View
from models.recipe.pictures import Place, Scene, Thing, draw, new_camera, random_thing
from models.recipe.quick_types import quick_types
from models.recipe.run import Pace, Run
from models.recipe.seeing import seeing
from models.recipe.sheets import CAMERA_LIMITS, Grid

PACE = Pace(peak_rate=1e-3, warmup_steps=100, rate_halves_after=4000, averaging=0.998)
GRIDS_PER_STEP = 32
NAMES = (*phrases.SHAPES, *(str(digit) for digit in range(10)))
CROWD_SHARE = 0.5
PRINTED_SHARE = 0.35  # one or two digits, large: the finest that is to be told apart
LIKENESS_WEIGHT = 0.02
BLANK_SCORE = 8.0  # half of what the placeholder's own embedding scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The things of a batch of grids: their rows, the numbers of their colours and names, and
    whether they are on the left and on the right, [things, 2].
    """

    rows: Tensor
    colours: Tensor
    names: Tensor
    sides: Tensor


def random_grid(chance: random.Random) -> Grid:
    """A camera's grid: a scene as conversations ask about, or a crowd, or digits."""
    scenes = seeing(chance, "train").scenes
    share = chance.random()
    if share < CROWD_SHARE:
        scenes = (Scene(things=tuple(_any_thing(chance) for _ in range(chance.randint(4, 9)))),)
    elif share < CROWD_SHARE + PRINTED_SHARE:
        scenes = (Scene(things=_printed(chance)),)
    camera = new_camera(chance, scenes)
    view = View(from_s=0.0, scene=chance.choice(scenes) if scenes else Scene(), camera=camera)
    moment = chance.randrange(8)
    frames = tuple(draw(view.scene, camera, moment=moment + k) for k in range(2))
    if chance.random() < 0.15:  # a still
        frames = (frames[0], frames[0])
    patches, size = patchify(frames, limits=CAMERA_LIMITS)
    return Grid(patches=torch.from_numpy(patches).half(), size=size, view=view)


def _any_thing(chance: random.Random) -> Thing:
    names = phrases.SHAPES if chance.random() < 0.5 else NAMES
    return Thing(shape=chance.choice(names), colour=chance.choice(phrases.COLOURS))


def _printed(chance: random.Random) -> tuple[Thing, ...]:
    places: tuple[tuple[Place, ...], ...] = (("left",), ("middle",), ("right",), ("left", "right"))
    return tuple(
        replace(random_thing(chance, place), shape=str(chance.randint(0, 9)))
        for place in chance.choice(places)
    )


def relit(grid: Grid, chance: random.Random) -> Grid:
    """The same picture in another light."""
    gain, offset = chance.uniform(0.9, 1.1), chance.uniform(-0.06, 0.06)
    return replace(grid, patches=grid.patches * gain + offset)


def take_step(run: Run, learner: Learner, grids: Sequence[Grid]) -> dict[str, float]:
    """One step on grids of one size."""
    run.begin_step()
    rows = torch.cat([grid_rows(learner, grid) for grid in grids])
    marks = marks_of(grids)
    with quick_types():
        seen = see_batch(learner, grids)
    loss, is_right = things_loss(learner, seen.float(), rows, marks)
    loss.backward()  # type: ignore[no-untyped-call]
    run.end_step()
    return {"loss": loss.item(), "right": float(is_right)}


def see_batch(learner: Learner, grids: Sequence[Grid]) -> Tensor:
    """Tokens of grids of one size, [n, hidden]."""
    patches = torch.cat([grid.patches.float() for grid in grids])
    with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused kernel's gradient is much slower
        features: Tensor
        features, _ = learner.thinker.visual(patches, grids[0].size, num_grids=len(grids))
    return features


def marks_of(grids: Sequence[Grid]) -> Marks:
    """Where things are in the tokens of all grids."""
    found: list[tuple[int, Thing]] = []
    sides = []
    first = 0
    for grid in grids:
        for cell, thing in marked_cells(grid.view, grid.size):
            found.append((first + cell, thing))
            sides.append([float(side_of(cell, grid.size) == side) for side in (0, 1)])
        first += grid.num_tokens
    return Marks(
        rows=torch.tensor([row for row, _ in found], dtype=torch.long),
        colours=torch.tensor([phrases.COLOURS.index(t.colour) for _, t in found]),
        names=torch.tensor([NAMES.index(t.shape) for _, t in found]),
        sides=torch.tensor(sides).view(-1, 2),
    )


def things_loss(
    learner: Learner, seen: Tensor, rows: Tensor, marks: Marks
) -> tuple[Tensor, Tensor]:
    """The loss of tokens [n, hidden] that should be `rows`, and the share of things named right."""
    table = learner.table
    is_thing = torch.zeros(len(seen)).index_fill(0, marks.rows, 1.0)
    blank = SCALE * seen @ table[learner.config.thinker.video_id] - BLANK_SCORE
    weights = 1.0 + 7.0 * is_thing
    loss = F.binary_cross_entropy_with_logits(blank, 1.0 - is_thing, weight=weights)
    likeness = ((seen - rows).square().mean(dim=1) * weights).mean()
    loss = loss + LIKENESS_WEIGHT * likeness
    if not len(marks.rows):
        return loss, torch.ones(())
    colour_ids, name_ids = _class_ids(learner)
    things = SCALE * seen[marks.rows]
    colours, names = things @ table[colour_ids].T, things @ table[name_ids].T
    loss = loss + F.cross_entropy(colours, marks.colours) + F.cross_entropy(names, marks.names)
    sides = things @ table[[*side_ids(learner)]].T - BLANK_SCORE
    loss = loss + F.binary_cross_entropy_with_logits(sides, marks.sides)
    is_right = (colours.argmax(1) == marks.colours) & (names.argmax(1) == marks.names)
    return loss, (is_right & (blank[marks.rows] < 0)).float().mean()


def _class_ids(learner: Learner) -> tuple[list[int], list[int]]:
    colours = [thing_ids(learner, Thing(shape="star", colour=name))[0] for name in phrases.COLOURS]
    names = [thing_ids(learner, Thing(shape=name, colour="red"))[1] for name in NAMES]
    return colours, names
