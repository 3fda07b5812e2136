"""Training goes on from a checkpoint as if it had never stopped, but for the optimiser."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.commands.ask import Answer
from models.content import Message, ReplyOptions, Text
from models.engine import Engine
from models.errors import CheckpointError
from models.hub import EMBEDDED_FOLDER
from models.placement import Placement
from models.recipe import voices, warm_start
from models.recipe.codec import Codec
from models.recipe.export import export
from models.recipe.hearing import PACE
from models.recipe.stages import run_stages
from models.recipe.tokenizer import Vocabulary, read_vocabulary
from models.recipe.warm_start import FILE, LEARNT, begin_from
from models.tiny_tokenizer import SPECIAL_TOKENS

OWN_WORDS = read_vocabulary(EMBEDDED_FOLDER)
pytestmark = pytest.mark.skipif(
    bool(voices.missing_programs()), reason="flite or espeak-ng is not installed"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder that begins with the checkpoint that ships."""
    return _begun(tmp_path_factory.mktemp("warm") / "new", OWN_WORDS.pieces)


def _begun(folder: Path, todays_pieces: tuple[str, ...]) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warm_start, "todays_vocabulary", lambda: Vocabulary(pieces=todays_pieces))
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


def test_words_that_the_conversations_gained_come_behind_the_others(tmp_path: Path) -> None:
    new_words = ("ĠAnna", "Ġzebra", "Ġyodels")  # the first is known
    work = _begun(tmp_path / "grown", new_words)
    export(work, tmp_path / "exported")
    grown = read_vocabulary(tmp_path / "exported")
    assert grown.pieces == (*OWN_WORDS.pieces, *new_words[1:])
    tables = "thinker.model.embed_tokens.weight", "thinker.lm_head.weight"
    shipped, written = _weights(EMBEDDED_FOLDER), _weights(tmp_path / "exported")
    for name in shipped.keys() - {*tables}:
        assert torch.equal(shipped[name], written[name])
    for name in tables:
        old, new = shipped[name], written[name]
        assert torch.equal(
            old, torch.cat([new[: len(OWN_WORDS.pieces)], new[-len(SPECIAL_TOKENS) :]])
        )
    replies = [
        _reply(folder, "what is two plus three")
        for folder in (EMBEDDED_FOLDER, tmp_path / "exported")
    ]
    assert replies == ["Two plus three is five."] * 2


def _reply(folder: Path, prompt: str) -> str:
    engine = Engine.load(folder, Placement(device="cpu", dtype="float32"))
    engine.open(1, instructions="", voice=None)
    engine.append_message(1, Message(role="user", parts=(Text(text=prompt),)))
    engine.respond(1, 1, ReplyOptions(audio=False, greedy=True, max_tokens=20))
    return Answer.collect(engine, io.StringIO()).text


def _weights(folder: Path) -> dict[str, Tensor]:
    return {k: v for path in folder.glob("model*.safetensors") for k, v in load_file(path).items()}


def test_steps_are_counted_on_and_the_rate_rises_anew(work: Path) -> None:
    assert {path.stem for path in work.glob("*.pt")} == {*LEARNT, "codec", "table"}
    state = torch.load(work / "hearing.pt", weights_only=True)
    assert state["step"] == state["begun"] > 10_000
    assert state["seed"] == 3
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
