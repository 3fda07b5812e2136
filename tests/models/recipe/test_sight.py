"""Learning to see: things are marked where they lie, and everything learns."""

from __future__ import annotations

import random

import torch

from models.recipe import sight
from models.recipe.imagined import grid_rows, marked_cells, thing_ids
from models.recipe.learner import Learner
from models.recipe.lessons import View
from models.recipe.pictures import HEIGHT, WIDTH, Scene, Thing, new_camera, places
from models.recipe.run import Run
from models.recipe.sheets import Grid
from models.recipe.sight import marks_of, random_grid, take_step


def one_thing(thing: Thing) -> View:
    scene = Scene(things=(thing,))
    return View(from_s=0.0, scene=scene, camera=new_camera(random.Random(1), (scene,)))


def test_a_thing_is_marked_where_its_middle_lies(learner: Learner) -> None:
    view = one_thing(Thing(shape="star", colour="red", place="right"))
    ((x, y, _),) = places(view.scene, view.camera)
    ((cell, thing),) = marked_cells(view, (12, 16))
    assert divmod(cell, 8) == (int(y / HEIGHT * 6), int(x / WIDTH * 8))
    grid = Grid(patches=torch.zeros(1), size=(12, 16), view=view)
    rows = grid_rows(learner, grid)
    colour, name = thing_ids(learner, thing)
    assert torch.equal(rows[cell], learner.table[colour] + learner.table[name])
    assert torch.equal(rows[(cell + 1) % 48], learner.table[learner.config.thinker.video_id])


def test_a_digit_is_called_by_its_number(learner: Learner) -> None:
    _, name = thing_ids(learner, Thing(shape="7", colour="blue"))
    assert [name] == learner.word_ids("seven")


def test_everything_but_deepstack_learns(learner: Learner) -> None:
    visual = learner.thinker.visual
    run = Run.new(visual, sight.PACE, 0)
    before = {name: p.detach().clone() for name, p in visual.named_parameters()}
    chance = random.Random(0)
    grids = [random_grid(chance) for _ in range(3)]
    assert len(marks_of(grids).rows) == sum(len(grid.view.scene.things) for grid in grids)
    losses = [take_step(run, learner, grids)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    still = [n for n, p in visual.named_parameters() if torch.equal(p, before[n])]
    assert all(name.startswith("merger_list") for name in still)
