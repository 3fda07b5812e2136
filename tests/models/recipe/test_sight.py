"""Learning to see: things are marked where they lie, and everything learns."""

from __future__ import annotations

import random

import torch

from models.qwen3_omni.vision_encoder import rotate
from models.recipe import sight
from models.recipe.imagined import grid_rows, marked_cells, thing_ids
from models.recipe.learner import Learner
from models.recipe.lessons import View
from models.recipe.pictures import HEIGHT, WIDTH, Scene, Thing, new_camera, places
from models.recipe.run import Run
from models.recipe.sheets import Grid
from models.recipe.sight import marks_of, random_grid, relit, take_step


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
    (side,) = learner.word_ids("right")
    assert torch.equal(rows[cell], learner.table[[colour, name, side]].sum(dim=0))
    assert torch.equal(rows[(cell + 1) % 48], learner.table[learner.config.thinker.video_id])


def test_a_digit_is_called_by_its_number(learner: Learner) -> None:
    _, name = thing_ids(learner, Thing(shape="7", colour="blue"))
    assert [name] == learner.word_ids("seven")


@torch.no_grad()
def test_a_head_begins_by_looking_nearby(learner: Learner) -> None:
    """Most of what a patch in the middle attends to lies within three patches, each way."""
    visual = learner.thinker.visual
    grid = random_grid(random.Random(0))
    tables = visual.grid_tables(grid.size)
    block = visual.blocks[0]
    hidden = visual.patch_embed(grid.patches.float()[None])
    assert 0.1 < float(hidden.std()) < 2.0
    heads = block.attn.qkv(block.norm1(hidden)).unflatten(-1, (3, block.attn.num_heads, -1))
    queries, keys, _ = heads.permute(2, 0, 3, 1, 4).unbind(0)
    scores = rotate(queries, tables) @ rotate(keys, tables).transpose(2, 3)
    shares = (scores / queries.shape[-1] ** 0.5).softmax(dim=-1)[0]  # [heads, n, n]
    height, width = grid.size
    blocks = torch.arange(height * width).view(height // 2, width // 2, 2, 2)
    order = blocks.permute(0, 2, 1, 3).reshape(height, width)  # where each patch lies in a block
    middle = order[height // 2, width // 2]
    near = order[height // 2 - 3 : height // 2 + 4, width // 2 - 3 : width // 2 + 4].flatten()
    assert float(shares[:, middle, near].sum(dim=1).min()) > 0.5  # of 49 out of 192


def test_another_light_changes_no_thing() -> None:
    grid = random_grid(random.Random(0))
    changed = relit(grid, random.Random(1))
    assert (changed.view, changed.size) == (grid.view, grid.size)
    assert not torch.equal(changed.patches, grid.patches)
    both = torch.stack([changed.patches.flatten(), grid.patches.flatten()])
    likeness = torch.corrcoef(both.float())
    assert float(likeness[0, 1]) > 0.99


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
