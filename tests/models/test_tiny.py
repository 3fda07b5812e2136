"""The tiny checkpoint: published format, and a talker's behaviour for every seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from models import tiny
from models.chat import ChatFormat
from models.config import read_config
from models.content import Audio, AudioEvent, EndEvent, Message, ReplyOptions, Text, TextEvent
from models.engine import Engine, Placement
from models.errors import CheckpointError
from models.generation import read_generation
from models.tiny import write_tiny_checkpoint
from models.tiny_tokenizer import word_ids
from models.weights import INDEX_FILE, load_model

DATA = Path(__file__).parent / "data"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_tiny_checkpoint(made)
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.load(folder, Placement(device="cpu"))


# ------------------------------------------------------------------------------------------ format
def keys(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {k for key, inner in value.items() for k in keys(inner, f"{prefix}.{key}")}


def test_config_has_the_published_fields_and_ids(folder: Path) -> None:
    ours = json.loads((folder / "config.json").read_text())
    published = json.loads((DATA / "qwen3_omni_30b_config.json").read_text())
    assert keys(published) - keys(ours) == set()
    flat = ("thinker_config", "talker_config")
    for mine, theirs in ((ours, published), *((ours[k], published[k]) for k in flat)):
        for key, value in theirs.items():
            if isinstance(value, int) and ("token_id" in key or key.startswith("codec_")):
                assert mine[key] == value, key
    assert ours["talker_config"]["speaker_id"] == published["talker_config"]["speaker_id"]
    assert ours["thinker_config"]["text_config"]["vocab_size"] == 152064
    config = read_config(folder)
    assert config.is_babbling


def test_files(folder: Path) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert {path.name for path in folder.iterdir()} == shards | {
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.json",
        INDEX_FILE,
    }
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.glob("*.safetensors"))
    settings = read_generation(folder, read_config(folder)).thinker
    assert settings.sampling.do_sample
    assert settings.sampling.min_new_tokens == 16
    assert settings.max_new_tokens == 96


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_it(folder: Path) -> None:
    from transformers import AutoTokenizer, Qwen3OmniMoeForConditionalGeneration

    _, info = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = ["\n", "user", "system", "assistant", "<|im_start|>", "<|im_end|>", "<|audio_pad|>"]
    ids = [tokenizer.encode(word) for word in words]
    assert ids == [[198], [872], [8948], [77091], [151644], [151645], [151675]]
    ours = ChatFormat.load(folder, read_config(folder))
    text = "Hello, how are you?\n  Ünd 漢字 🙂 12 don't\n\n"
    assert tokenizer.encode(text) == ours.encode(text)


def test_only_words_and_the_end_can_be_said(folder: Path) -> None:
    config = read_config(folder)
    model = load_model(folder, config, device=CPU, dtype=torch.float32)
    words = word_ids(json.loads((folder / "tokenizer.json").read_text()))
    alive = model.thinker.lm_head.weight.abs().sum(dim=1).nonzero().flatten().tolist()
    assert alive == sorted([*words, config.im_end_id])
    assert len(words) > 150
    reader = ChatFormat.load(folder, config).detokenizer()
    assert all(reader.push(word).strip().isprintable() for word in words)
    hidden = model.thinker.model.norm.weight[None] * 1.0
    assert model.thinker.logits(hidden).argmax() in alive


# ------------------------------------------------------------------------------------- determinism
def test_same_seed_same_files(folder: Path, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_another_seed_and_overrides(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "MAX_FLOAT32_BYTES", 1000)
    overrides = {
        "thinker_config": {
            "text_config": {"num_hidden_layers": 5, "num_experts": 4, "num_key_value_heads": 1},
            "audio_config": {"n_window_infer": 800},
        }
    }
    write_tiny_checkpoint(tmp_path / "other", seed=1, overrides=overrides)
    config = read_config(tmp_path / "other")
    assert config.thinker.decoder.num_layers == 5
    assert config.thinker.decoder.num_heads == 4  # not overridden
    assert config.thinker.audio.n_window_infer == 800
    assert config.dtype == "bfloat16"  # large ones are stored small
    other = load_model(tmp_path / "other", config, device=CPU, dtype=torch.float32)
    first = load_model(folder, read_config(folder), device=CPU, dtype=torch.float32)
    name = "thinker.model.layers.0.self_attn.qkv_proj.weight"
    assert not torch.equal(other.get_parameter(name)[:8], first.get_parameter(name)[:8])
    assert [r.status for r in replies(Engine.load(tmp_path / "other"), range(2))] == [
        "completed"
    ] * 2


# --------------------------------------------------------------------------------------- behaviour
@dataclass
class Said:
    text: str
    seconds: float
    rms: float
    status: str


def replies(engine: Engine, seeds: range, *, greedy: bool = False) -> list[Said]:
    found = []
    for seed in seeds:
        noise = np.random.default_rng(seed).standard_normal(16_000 + 100 * seed)
        parts = (Text(text=f"Question {seed}"), Audio(pcm=(0.1 * noise).astype(np.float32)))
        engine.open(seed, instructions="Be kind.", voice=None)
        engine.append_message(seed, Message(role="user", parts=parts))
        engine.respond(seed, seed, ReplyOptions(seed=seed, greedy=greedy))
        found.append(listen(engine))
        engine.close(seed)
    return found


def listen(engine: Engine) -> Said:
    text, pcm = "", []
    while True:
        for event in engine.step():
            if isinstance(event, TextEvent):
                text += event.text
            elif isinstance(event, AudioEvent):
                pcm.append(event.pcm)
            elif isinstance(event, EndEvent):
                wave = np.concatenate(pcm) / 32768
                rms = float(np.sqrt(np.mean(wave**2)))
                return Said(text, len(wave) / 24_000, rms, event.status)


def test_replies_of_twenty_seeds(engine: Engine) -> None:
    assert engine.is_babbling
    said = replies(engine, range(20))
    assert [reply.status for reply in said] == ["completed"] * 20
    assert all(len(reply.text.split()) >= 8 for reply in said)
    assert all(1.0 <= reply.seconds <= 10.0 for reply in said)
    assert all(0.03 < reply.rms < 0.3 for reply in said)
    assert len({reply.text for reply in said}) > 15


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_replies_of_other_checkpoints(seed: int, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "checkpoint", seed=seed)
    said = replies(Engine.load(tmp_path / "checkpoint", Placement(device="cpu")), range(10))
    assert [reply.status for reply in said] == ["completed"] * 10
    assert all(1.0 <= reply.seconds <= 10.0 for reply in said)
    assert all(0.03 < reply.rms < 0.3 for reply in said)


# ------------------------------------------------------------------------------------------ folders
@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of a single number, for tests of folders."""
    monkeypatch.setattr(tiny, "tiny_weights", lambda *_: {"x": torch.ones(1)})


@pytest.mark.usefixtures("no_weights")
def test_folders_that_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"):
        write_tiny_checkpoint(file)
    with pytest.raises(CheckpointError, match="not empty and holds no tiny checkpoint"):
        write_tiny_checkpoint(tmp_path, force=True)
    assert file.read_text() == "mine"
    empty = tmp_path / "new" / "empty"
    empty.mkdir(parents=True)
    write_tiny_checkpoint(empty)
    with pytest.raises(CheckpointError, match="--force"):
        write_tiny_checkpoint(empty)
    (empty / "old").write_text("old")
    write_tiny_checkpoint(empty, force=True)
    assert not (empty / "old").exists()
    assert [path.name for path in empty.parent.iterdir()] == ["empty"]


@pytest.mark.usefixtures("no_weights")
def test_a_folder_filled_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> dict:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "config.json").write_text("of another process")
        return {"x": torch.ones(1)}

    monkeypatch.setattr(tiny, "tiny_weights", slow)
    with pytest.raises(CheckpointError, match="can not write"):
        write_tiny_checkpoint(tmp_path / "new")
    assert (tmp_path / "new" / "config.json").read_text() == "of another process"


def test_nothing_is_left_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "tiny_weights", fail)
    with pytest.raises(KeyboardInterrupt):
        write_tiny_checkpoint(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can not write beside"):
        write_tiny_checkpoint(tmp_path / "file" / "new")


def test_overrides_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_type"):
        write_tiny_checkpoint(tmp_path / "new", overrides={"model_type": "llama"})
