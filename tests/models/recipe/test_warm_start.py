"""Training goes on from a checkpoint as if it had never stopped, but for the optimiser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import CheckpointError
from models.hub import EMBEDDED_FOLDER
from models.recipe import voices
from models.recipe.codec import Codec
from models.recipe.export import export
from models.recipe.hearing import PACE
from models.recipe.stages import run_stages
from models.recipe.warm_start import FILE, LEARNT, begin_from

pytestmark = pytest.mark.skipif(
    bool(voices.missing_programs()), reason="flite or espeak-ng is not installed"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder that begins with the checkpoint that ships."""
    folder: Path = tmp_path_factory.mktemp("warm") / "new"
    run_stages(folder, [], seed=3, minutes=0, is_resumed=False, begin_with=EMBEDDED_FOLDER)
    return folder


def test_what_it_begins_with_is_what_it_would_ship(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path)
    for path in EMBEDDED_FOLDER.glob("*.safetensors"):
        shipped, written = load_file(path), load_file(tmp_path / path.name)
        assert shipped.keys() == written.keys()
        assert all(torch.equal(shipped[name], written[name]) for name in shipped)
    for name in ("tokenizer.json", "config.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (EMBEDDED_FOLDER / name).read_bytes()


def test_steps_are_counted_on_and_the_rate_rises_anew(work: Path) -> None:
    assert {path.stem for path in work.glob("*.pt")} == {*LEARNT, "codec"}
    state = torch.load(work / "hearing.pt", weights_only=True)
    assert state["step"] == state["begun"] > 10_000
    assert state["seed"] == 3
    assert not state["weights"]["sounds.weight"].any()
    first, later = (PACE.rate(state["step"] + k, state["begun"]) for k in (0, PACE.warmup_steps))
    assert 100 * first < later < PACE.rate(PACE.warmup_steps)


def test_the_codec_is_the_one_that_was_learnt_with(work: Path) -> None:
    codec = Codec.load(work / "codec.pt")
    assert codec.books.shape == (8, 512, 96)
    gram = codec.basis.T @ codec.basis
    assert (gram - torch.eye(96)).abs().max() < 1e-2


def test_a_folder_with_something_trained_is_left_alone(work: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume"):
        run_stages(work, [], seed=0, minutes=0, is_resumed=False, begin_with=EMBEDDED_FOLDER)


@pytest.mark.parametrize("broken", ["missing", "cut", "steps"])
def test_a_checkpoint_of_others_is_refused(broken: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(EMBEDDED_FOLDER, folder)
    match broken:
        case "missing":
            (folder / FILE).unlink()
        case "cut":
            (folder / FILE).write_bytes((folder / FILE).read_bytes()[:100])
        case "steps":
            save_file({"mean": torch.zeros(1)}, folder / FILE, metadata={"hearing": "many"})
    with pytest.raises(CheckpointError, match=FILE):
        begin_from(folder, tmp_path / "work", 0)
    assert not (tmp_path / "work").exists()
