"""Checkpoints that compressed-tensors has packed, and fp8 in blocks, are read as it reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import (
    NaiveQuantizationCompressor,
    PackedQuantizationCompressor,
)
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from oracle import Oracle
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import CheckpointError
from models.loading import packed_group
from models.memory_plan import plan_memory
from models.packed_matrices import Int4Matrices
from models.packing import read_packing
from models.quantized import read_packed, read_scaled
from models.weights import load_model

CPU = torch.device("cpu")
INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 8}
SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "w4": ("pack-quantized", INT4),
    "w4-offset": ("pack-quantized", {**INT4, "symmetric": False}),
    "w4-rows": ("pack-quantized", {**INT4, "strategy": "channel", "group_size": None}),
    "w8-packed": ("pack-quantized", {**INT4, "num_bits": 8, "symmetric": False}),
    "w8": ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
    "w8-matrix": ("naive-quantized", {"num_bits": 8, "type": "int", "strategy": "tensor"}),
    "fp8": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "fp8-blocks": (
        "naive-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 12]},
    ),
}
PACKED = "thinker.model.layers.1."


def quantization(layout: str, weights: dict[str, Any]) -> dict[str, Any]:
    """The part of config.json."""
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}


def compressed(
    weight: Tensor, layout: str, given: dict[str, Any]
) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of one matrix, and the matrix that they are read as, by the library."""
    args = QuantizationArgs(**given)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    rows, columns = weight.shape
    match args.strategy:
        case "group":
            parts = weight.view(rows, -1, given["group_size"])
            low, high = parts.amin(-1), parts.amax(-1)
        case "channel":
            low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        case "tensor":
            low, high = weight.min().view(1), weight.max().view(1)
        case _:
            height, width = given["block_structure"]
            size = torch.tensor([-(-rows // height), -(-columns // width)])
            high = torch.full(size.tolist(), float(weight.abs().max()))
            high *= torch.linspace(0.5, 1.0, high.numel()).view_as(high)  # each block its own
            low = -high
    scale, zero = calculate_qparams(low, high, args)
    library = (
        PackedQuantizationCompressor if layout == "pack-quantized" else NaiveQuantizationCompressor
    )
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    made = library.compress(state, scheme)
    return made, library.decompress(dict(made), scheme)["weight"]


def packed_checkpoint(oracle: Oracle, folder: Path, name: str) -> dict[str, Tensor]:
    """The oracle's checkpoint with one layer packed; returns what its matrices are read as."""
    layout, weights = SCHEMES[name]
    tensors: dict[str, Tensor] = {}
    for path in oracle.folder.glob("*.safetensors"):
        tensors |= load_file(path)
    expected: dict[str, Tensor] = {}
    for matrix in [n for n in tensors if n.startswith(PACKED) and n.endswith("proj.weight")]:
        made, expected[matrix] = compressed(tensors.pop(matrix), layout, weights)
        base = matrix.removesuffix("weight")
        tensors |= {base + part: tensor.contiguous() for part, tensor in made.items()}
    write_config(oracle, folder, quantization(layout, weights))
    save_file(tensors, folder / "model.safetensors")
    return expected


def write_config(oracle: Oracle, folder: Path, scheme: object) -> None:
    raw = json.loads((oracle.folder / "config.json").read_text(encoding="utf-8"))
    raw["quantization_config"] = scheme
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize("name", SCHEMES)
def test_a_compressed_checkpoint_loads_as_the_library_reads_it(
    oracle: Oracle, tmp_path: Path, name: str
) -> None:
    expected = packed_checkpoint(oracle, tmp_path, name)
    model = load_model(tmp_path, oracle.config, device=CPU, dtype=torch.float32)
    layer = model.thinker.model.layers[1]
    keys = expected[PACKED + "self_attn.k_proj.weight"]
    start = layer.self_attn.num_heads * layer.self_attn.head_dim
    torch.testing.assert_close(layer.self_attn.qkv_proj.weight[start : start + len(keys)], keys)
    for expert in (0, 3):
        down = expected[PACKED + f"mlp.experts.{expert}.down_proj.weight"]
        torch.testing.assert_close(layer.mlp.experts.down_proj[expert], down)


def test_four_bits_stay_packed_where_experts_are(oracle: Oracle, tmp_path: Path) -> None:
    """With the file's levels and groups: nothing is rounded again but scales."""
    expected = packed_checkpoint(oracle, tmp_path, "w4-offset")
    model = load_model(tmp_path, oracle.config, device=CPU, dtype=torch.float32, experts="int4")
    experts = model.thinker.model.layers[1].mlp.experts
    down = expected[PACKED + "mlp.experts.3.down_proj.weight"]
    assert experts.down_proj.group == 8
    torch.testing.assert_close(experts.down_proj.dequantized(3), down, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("name", ["w4-rows", "w8", "fp8-blocks"])
def test_what_has_no_groups_gets_ours(oracle: Oracle, tmp_path: Path, name: str) -> None:
    """A scale of a whole row is repeated, and what has 8 bits is rounded as a full matrix is."""
    expected = packed_checkpoint(oracle, tmp_path, name)
    model = load_model(tmp_path, oracle.config, device=CPU, dtype=torch.float32, experts="int4")
    experts = model.thinker.model.layers[1].mlp.experts
    down = expected[PACKED + "mlp.experts.3.down_proj.weight"]
    own = Int4Matrices(1, *down.shape)
    own.put(0, 0, down)
    assert experts.down_proj.group == own.group
    made = experts.down_proj.dequantized(3)
    if name == "w4-rows":
        torch.testing.assert_close(made, down, rtol=0.01, atol=0.02)
    else:
        torch.testing.assert_close(made, own.dequantized(0))


def test_the_plan_knows_a_checkpoints_groups(oracle: Oracle, tmp_path: Path) -> None:
    """A scale and an offset for each eight columns weigh as much as the levels."""
    packed_checkpoint(oracle, tmp_path, "w4")
    group = packed_group(tmp_path)
    packed, usual = (
        plan_memory(
            oracle.config,
            num_sessions=1,
            context_tokens=1,
            dtype=torch.float32,
            experts="int4",
            group=size,
        )["thinker"].weights
        for size in (group, 16)
    )
    model = load_model(tmp_path, oracle.config, device=CPU, dtype=torch.float32, experts="int4")
    assert group == 8
    assert packed == sum(p.nbytes for p in model.thinker.parameters()) > usual


def test_columns_may_have_groups_out_of_order(oracle: Oracle, tmp_path: Path) -> None:
    """As older versions of the library wrote them (`actorder: group`)."""
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(3))
    given = {**INT4, "group_size": 4}
    made, expected = compressed(weight, "pack-quantized", given)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    groups = torch.arange(20) // 4
    words, scales, shape = (made[f"weight_{part}"] for part in ("packed", "scale", "shape"))
    levels = read_packed(words, scales, shape).levels[:, order]
    words = (levels.long().view(6, -1, 4) << 4 * torch.arange(4)).sum(-1)  # half a word each
    words = torch.nn.functional.pad(words, (0, 1)).view(6, 3, 2)
    words = (words[..., 0] | words[..., 1] << 16).int()
    read = read_packed(words, scales, shape, groups=groups[order])
    torch.testing.assert_close(read.dequantized(), expected[:, order])
    write_config(oracle, tmp_path, quantization("pack-quantized", {**given, "actorder": "group"}))
    packing = read_packing(tmp_path)
    assert packing is not None
    assert packing.parts[-1] == "weight_g_idx"


def test_blocks_at_the_edge_are_smaller() -> None:
    numbers = torch.arange(15.0).view(3, 5)
    scales = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
    made = read_scaled(numbers, scales, block=(2, 2))
    assert made.tolist() == [
        [0.0, 1.0, 20.0, 30.0, 400.0],
        [5.0, 6.0, 70.0, 80.0, 900.0],
        [20.0, 22.0, 240.0, 260.0, 2800.0],
    ]
    with pytest.raises(CheckpointError, match="do not fit together"):
        read_scaled(numbers, scales, block=(3, 2))
    with pytest.raises(CheckpointError, match="do not fit together"):
        read_scaled(numbers, scales)  # no three parts of five columns


def test_fp8_in_blocks_loads(oracle: Oracle, tmp_path: Path) -> None:
    """The layout that published FP8 checkpoints of the family have."""
    tensors: dict[str, Tensor] = {}
    for path in oracle.folder.glob("*.safetensors"):
        tensors |= load_file(path)
    name = PACKED + "mlp.experts.3.down_proj.weight"
    weight = tensors.pop(name)
    rows, columns = weight.shape
    scales = torch.rand(-(-rows // 16), -(-columns // 16)) + 0.5
    spread = scales.repeat_interleave(16, 0)[:rows].repeat_interleave(16, 1)[:, :columns]
    tensors[name] = (weight / spread).to(torch.float8_e4m3fn)
    tensors[name + "_scale_inv"] = scales
    write_config(oracle, tmp_path, {"quant_method": "fp8", "weight_block_size": [16, 16]})
    save_file(tensors, tmp_path / "model.safetensors")
    model = load_model(tmp_path, oracle.config, device=CPU, dtype=torch.float32)
    down = model.thinker.model.layers[1].mlp.experts.down_proj[3]
    torch.testing.assert_close(down, tensors[name].float() * spread)


def test_a_part_that_is_missing_is_named(oracle: Oracle, tmp_path: Path) -> None:
    packed_checkpoint(oracle, tmp_path, "w4")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors[PACKED + "mlp.experts.3.down_proj.weight_scale"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"experts\.3\.down_proj lacks weight_scale"):
        load_model(tmp_path, oracle.config, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (quantization("nvfp4-pack-quantized", INT4), "'nvfp4-pack-quantized' of 4 bits"),
        (quantization("pack-quantized", {**INT4, "num_bits": 3}), "of 3 bits"),
        ({**quantization("pack-quantized", INT4), "config_groups": {}}, "without config_groups"),
        ({**quantization("pack-quantized", INT4), "config_groups": [1]}, "without config_groups"),
        ({**quantization("pack-quantized", INT4), "kv_cache_scheme": {}}, "quantized caches"),
        ({"quant_method": "fp8", "weight_block_size": "a lot"}, "blocks of 'a lot'"),
        ({"quant_method": "fp8", "weight_block_size": [float("inf"), 2]}, "blocks of"),
        (quantization("pack-quantized", {**INT4, "type": "float"}), r"of 4 bits \(float\)"),
        (quantization("pack-quantized", {**INT4, "num_bits": "4"}), "of '4' bits"),
        (
            {
                **quantization("pack-quantized", INT4),
                "config_groups": {
                    "a": {"weights": INT4},
                    "b": {"weights": {**INT4, "num_bits": 8}},
                },
            },
            "several kinds",
        ),
    ],
)
def test_other_packings_are_refused(
    oracle: Oracle, tmp_path: Path, scheme: dict[str, Any], message: str
) -> None:
    write_config(oracle, tmp_path, scheme)
    with pytest.raises(CheckpointError, match=message):
        read_packing(tmp_path)
