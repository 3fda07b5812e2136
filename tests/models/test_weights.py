"""Loading and saving checkpoints: published names, strictness, memory, and faults."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.config import parse_config, read_config
from models.errors import CheckpointError, ResourceError
from models.qwen3_omni.model import Qwen3Omni
from models.tensor_names import expected_tensors
from models.weights import INDEX_FILE, load_model, load_weights, save_model

DATA = Path(__file__).parent / "data"
CPU = torch.device("cpu")


# ---------------------------------------------------------------------------- a small packed model
class Packed(nn.Module):
    packed_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {"qkv": ("q", "k")}

    def __init__(self) -> None:
        super().__init__()
        self.packed_sizes = {"qkv": (4, 2)}
        self.qkv = nn.Linear(3, 6)


class Stacked(nn.Module):
    expert_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "gate_up_proj": ("gate_proj", "up_proj"),
        "down_proj": ("down_proj",),
    }

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(2, 4, 3))
        self.down_proj = nn.Parameter(torch.empty(2, 3, 2))


class Model(nn.Module):
    constant: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attention = Packed()
        self.experts = Stacked()
        self.patch = nn.Linear(8, 5, bias=False)
        self.norm = nn.LayerNorm(3)
        self.upstream_shapes = {"patch.weight": (5, 2, 2, 2)}
        self.register_buffer("constant", torch.empty(2), persistent=False)

    def build_constants(self, device: torch.device) -> None:
        self.constant = torch.arange(2.0, device=device)


PUBLISHED = {
    "attention.q.weight": (4, 3),
    "attention.q.bias": (4,),
    "attention.k.weight": (2, 3),
    "attention.k.bias": (2,),
    **{f"experts.{e}.{part}_proj.weight": (2, 3) for e in (0, 1) for part in ("gate", "up")},
    **{f"experts.{e}.down_proj.weight": (3, 2) for e in (0, 1)},
    "patch.weight": (5, 2, 2, 2),
    "norm.weight": (3,),
    "norm.bias": (3,),
}


def meta_model() -> Model:
    with torch.device("meta"):
        return Model()


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in PUBLISHED.items()}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    model = meta_model()
    load_weights(model, folder, device=CPU, dtype=dtype)
    return model


def test_names_and_shapes_of_packed_modules() -> None:
    assert {
        name: tuple(shape) for name, shape in expected_tensors(meta_model()).items()
    } == PUBLISHED


def test_tensors_land_where_they_belong(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert torch.equal(
        model.attention.qkv.weight,
        torch.cat([tensors["attention.q.weight"], tensors["attention.k.weight"]]),
    )
    assert torch.equal(model.attention.qkv.bias[4:], tensors["attention.k.bias"])
    assert torch.equal(model.experts.gate_up_proj[1, 2:], tensors["experts.1.up_proj.weight"])
    assert torch.equal(model.experts.down_proj[0], tensors["experts.0.down_proj.weight"])
    assert torch.equal(model.patch.weight, tensors["patch.weight"].reshape(5, 8))
    assert model.constant.tolist() == [0.0, 1.0]
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_saved_shards_are_the_published_tensors(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    save_model(load(tmp_path), out, dtype=torch.float32, max_shard_bytes=100)
    index = json.loads((out / INDEX_FILE).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    saved = {name: t for file in files for name, t in load_file(out / file).items()}
    assert saved.keys() == tensors.keys() == index["weight_map"].keys()
    assert all(torch.equal(saved[name], tensors[name]) for name in tensors)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    with safe_open(out / files[0], "pt") as file:
        assert file.metadata() == {"format": "pt"}
    again = load(out)
    assert torch.equal(again.attention.qkv.weight, load(tmp_path).attention.qkv.weight)


def test_dtype_of_the_file_does_not_matter(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({k: v.bfloat16() for k, v in tensors.items()}, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert model.patch.weight.dtype == torch.float32
    assert torch.equal(model.norm.bias, tensors["norm.bias"].bfloat16().float())
    assert load(tmp_path, torch.bfloat16).patch.weight.dtype == torch.bfloat16


# ------------------------------------------------------------------------------------------ faults
def test_missing_and_left_over_tensors_are_named(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    del tensors["attention.k.bias"]
    tensors["attention.k.scale"] = torch.ones(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"1 tensors missing: attention\.k\.bias; 1 tensors left over: .*scale",
    ):
        load(tmp_path)


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    save_file({"norm.bias": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"12 tensors missing: .*, \.\.\."):
        load(tmp_path)


def test_wrong_shape_is_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    tensors["attention.q.weight"] = torch.ones(3, 4)  # as many numbers, another shape
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"attention\.q\.weight has shape \[3, 4\].*\[4, 3\]"):
        load(tmp_path)


def test_faulty_files(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="holds neither"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(tmp_path)
    (tmp_path / INDEX_FILE).write_text("{}")
    with pytest.raises(CheckpointError, match="can not read"):
        load(tmp_path)
    (tmp_path / INDEX_FILE).write_text('{"weight_map": {"norm.bias": "gone.safetensors"}}')
    with pytest.raises(CheckpointError, match="lacks 1 weight files: gone"):
        load(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-8])  # a broken-off download
    (tmp_path / INDEX_FILE).unlink()
    with pytest.raises(CheckpointError, match="is damaged"):
        load(tmp_path)


def test_too_little_memory(
    tmp_path: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.setattr("models.devices.cpu_memory", lambda: (1000, 100))
    with pytest.raises(ResourceError, match=r"needs .* on cpu; 100 B is free"):
        load(tmp_path)


# ----------------------------------------------------------------------- the published checkpoint
def published_tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    for line in (DATA / "qwen3_omni_30b_tensors.txt").read_text().splitlines():
        if not line.startswith("#"):
            pattern, shape = line.split()
            for name in expand(pattern):
                yield name, tuple(map(int, shape.split("x")))


def expand(pattern: str) -> Iterator[str]:
    found = re.search(r"\{([\d,-]+)\}", pattern)
    if found is None:
        yield pattern
        return
    for part in found[1].split(","):
        first, _, last = part.partition("-")
        for index in range(int(first), int(last or first) + 1):
            yield from expand(pattern[: found.start()] + str(index) + pattern[found.end() :])


def test_names_and_shapes_equal_the_published_checkpoint() -> None:
    config = parse_config(json.loads((DATA / "qwen3_omni_30b_config.json").read_text()))
    with torch.device("meta"):
        model = Qwen3Omni(config)
    ours = {name: tuple(shape) for name, shape in expected_tensors(model).items()}
    published = dict(published_tensors())
    assert len(published) == 28_010
    assert sum(map(prod, published.values())) == 35_259_818_545
    assert ours.keys() == published.keys()
    assert ours == published


# ------------------------------------------------------------------------- transformers' own files
@pytest.fixture(scope="module")
def saved_by_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    raw = json.loads((DATA / "qwen3_omni_30b_config.json").read_text())
    config = Qwen3OmniMoeConfig(**shrunk(raw))
    folder = tmp_path_factory.mktemp("saved")
    model = Qwen3OmniMoeForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the reference leaves some weights as the memory was: NaN at times
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def shrunk(raw: dict) -> dict:
    """The published config with every size cut down; ids and vocabulary of speech stay."""
    thinker, talker, vocoder = (
        raw[k] for k in ("thinker_config", "talker_config", "code2wav_config")
    )
    small = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    rope = {
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]},
    }
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    thinker["text_config"].update(small | rope | experts, hidden_size=32, vocab_size=2000)
    thinker["audio_config"].update(
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        downsample_hidden_size=4,
        output_dim=32,
    )
    thinker["vision_config"].update(
        depth=4,
        hidden_size=16,
        intermediate_size=16,
        num_heads=2,
        out_hidden_size=32,
        num_position_embeddings=16,
        deepstack_visual_indexes=[0, 1, 2],
    )
    talker["text_config"].update(
        small | rope | experts,
        hidden_size=24,
        intermediate_size=16,
        shared_expert_intermediate_size=8,
    )
    talker["code_predictor_config"].update(small, hidden_size=24, intermediate_size=16)
    talker.update(thinker_hidden_size=32, accept_hidden_layer=1)
    vocoder.update(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        decoder_dim=32,
    )
    raw["dtype"] = "float32"
    return raw


def test_loads_what_transformers_saves(saved_by_transformers: Path, tmp_path: Path) -> None:
    config = read_config(saved_by_transformers)
    assert config.talker is not None
    assert config.talker.decoder.moe is not None
    assert config.talker.decoder.moe.num_experts == 4  # saved as num_local_experts
    model = load_model(saved_by_transformers, config, device=CPU, dtype=torch.float32)
    save_model(model, tmp_path, dtype=torch.float32, max_shard_bytes=10**9)
    theirs = load_file(saved_by_transformers / "model.safetensors")
    ours = load_file(tmp_path / "model-00001-of-00001.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_bfloat16_keeps_the_vocoder_in_float32(saved_by_transformers: Path) -> None:
    config = read_config(saved_by_transformers)
    model = load_model(saved_by_transformers, config, device=CPU, dtype=torch.bfloat16)
    assert model.code2wav is not None
    assert {p.dtype for p in model.code2wav.parameters()} == {torch.float32}
    assert {p.dtype for p in model.thinker.parameters()} == {torch.bfloat16}
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])


def test_checkpoint_without_speech(saved_by_transformers: Path, tmp_path: Path) -> None:
    shutil.copytree(saved_by_transformers, tmp_path, dirs_exist_ok=True)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["enable_audio_output"] = False
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_config(tmp_path)
    assert config.talker is None
    assert config.vocoder is None
    with pytest.raises(CheckpointError, match="left over: code2wav"):
        load_model(tmp_path, config, device=CPU, dtype=torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    thinker = {name: t for name, t in tensors.items() if name.startswith("thinker.")}
    save_file(thinker, tmp_path / "model.safetensors")
    model = load_model(tmp_path, config, device=CPU, dtype=torch.float32)
    assert model.talker is None


# ------------------------------------------------------------------------------------------ memory
def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_peak_memory_is_one_copy(tmp_path: Path) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed = nn.ModuleList(Packed() for _ in range(4))
            # above 32 MiB each: memory that the C library never keeps for later when it is freed
            self.layers = nn.ModuleList(nn.Linear(4096, 2560, bias=False) for _ in range(3))

    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = Wide()
    half = {
        name: torch.randn(shape, generator=generator).bfloat16()
        for name, shape in expected_tensors(model).items()
    }
    save_file(half, tmp_path / "model.safetensors")
    del half
    # what earlier tests freed must not hide what is taken now
    ctypes.CDLL(None).malloc_trim(0)
    before, peak, done = anonymous_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    load_weights(model, tmp_path, device=CPU, dtype=torch.float32)
    peak = max(peak, anonymous_bytes())
    done.set()
    watcher.join()
    weights = sum(p.nbytes for p in model.parameters())
    assert weights > 90 * 2**20
    assert peak - before < 1.1 * weights
