"""What the recipe has trained becomes a checkpoint folder that the engine loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.content import EndEvent, Message, ReplyOptions, Text
from models.engine import Engine, Placement
from models.errors import CheckpointError
from models.qwen3_omni.images import read_pixel_limits
from models.qwen3_omni.vocoder import Code2Wav
from models.recipe.codec import Codec
from models.recipe.export import MAX_BYTES, export
from models.recipe.hearing import Pupil
from models.recipe.learner import new_learner, work_vocabulary
from models.recipe.run import Run
from models.recipe.sheets import CAMERA_LIMITS
from models.recipe.stages import vocoder_config
from models.recipe.talker import PACE, new_talker
from models.recipe.thinker import decoder_of
from models.recipe.warm_start import CODEC_FILE


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder of which nothing has learnt yet."""
    folder: Path = tmp_path_factory.mktemp("work")
    learner = new_learner(work_vocabulary(folder), 0)
    vocoder = Code2Wav(vocoder_config())
    for parameter in vocoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    modules = {
        "hearing": Pupil(learner.thinker.audio_tower, num_phonemes=1),
        "sight": learner.thinker.visual,
        "thinker": decoder_of(learner),
        "talker": new_talker(learner.config, 0),
        "vocoder": vocoder,
    }
    for name, module in modules.items():
        Run.new(module, PACE, 0).save(folder / f"{name}.pt")
    codec = Codec(mean=torch.rand(8), basis=torch.rand(8, 4), books=torch.rand(2, 6, 4))
    codec.save(folder / CODEC_FILE)
    return folder


def test_the_engine_loads_and_answers(work: Path, tmp_path: Path) -> None:
    size = export(work, tmp_path / "out")
    assert size == sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < MAX_BYTES
    assert read_pixel_limits(tmp_path / "out") == (CAMERA_LIMITS, CAMERA_LIMITS)
    engine = Engine.load(tmp_path / "out", Placement(device="cpu", dtype="float32"))
    engine.open(1, instructions="You are a helpful assistant.", voice=None)
    engine.append_message(1, Message(role="user", parts=(Text(text="hello"),)))
    engine.respond(1, 1, ReplyOptions(max_tokens=4))
    events = []
    while engine.has_work and not any(isinstance(event, EndEvent) for event in events):
        events += engine.step()
    end = events[-1]
    assert isinstance(end, EndEvent)
    assert end.error is None


def test_weights_are_those_that_were_averaged(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path)
    (file,) = tmp_path.glob("model*.safetensors")
    written = load_file(file)["thinker.model.embed_tokens.weight"]
    average = torch.load(work / "thinker.pt", weights_only=True)["average"]
    assert torch.equal(written, average["model.embed_tokens.weight"].half())
    heard = load_file(file)["thinker.audio_tower.proj2.weight"]
    average = torch.load(work / "hearing.pt", weights_only=True)["average"]
    assert torch.equal(heard, average["encoder.proj2.weight"].half())


def test_a_part_that_is_missing_is_named(work: Path, tmp_path: Path) -> None:
    for name in ("hearing.pt", "sight.pt", "thinker.pt", "vocoder.pt", "vocabulary.json"):
        (tmp_path / name).symlink_to(work / name)
    with pytest.raises(CheckpointError, match="talker"):
        export(tmp_path, tmp_path / "out")


def test_config_says_what_it_is(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["omnid_babbles"] is False
    assert raw["dtype"] == raw["thinker_config"]["dtype"] == "float16"
