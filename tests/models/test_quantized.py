"""Fewer bits: packed layouts read back exactly, and what rounding costs a made model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import Oracle
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import CheckpointError
from models.quantized import Grouped, read_awq, read_gptq
from models.weights import load_model

# AutoAWQ's: the i-th nibble of a word, from the lowest, holds this column of the eight.
AWQ_NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)


def made(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def quantize_grouped(weight: Tensor, group: int = 128) -> Grouped:
    """Round to the nearest of 16 levels between each group's least and greatest number.

    Args:
        weight: [N, H], H a multiple of `group`.
    """
    rows, columns = weight.shape
    parts = weight.to(torch.float32).view(rows, columns // group, group)
    low = parts.amin(dim=-1).clamp_max(0.0)
    high = parts.amax(dim=-1).clamp_min(0.0)
    scales = ((high - low) / (16 - 1)).clamp_min(1e-10)
    zeros = (-low / scales).round()
    levels = (parts / scales[..., None]).round() + zeros[..., None]
    levels = levels.clamp(0, 16 - 1).to(torch.uint8).view(rows, columns)
    return Grouped(levels, scales, zeros)


def round_float8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H] as 8-bit floats and the scale of each row: float8_e4m3fn and [N, 1] float32."""
    wide = weight.to(torch.float32)
    scales = (wide.abs().amax(dim=-1, keepdim=True) / 448.0).clamp_min(1e-12)
    return (wide / scales).to(torch.float8_e4m3fn), scales


def packed(levels: Tensor, nibbles: tuple[int, ...]) -> Tensor:
    """[R, 8 C] -> [R, C] int32."""
    words = torch.zeros(levels.shape[0], levels.shape[1] // 8, dtype=torch.int64)
    for place, column in enumerate(nibbles):
        words |= levels[:, column::8].to(torch.int64) << (4 * place)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


@pytest.fixture
def grouped() -> Grouped:
    return quantize_grouped(made(24, 64), group=16)


def test_awq_is_read_as_packed(grouped: Grouped) -> None:
    read = read_awq(
        packed(grouped.levels.t(), AWQ_NIBBLES),
        packed(grouped.zeros.t(), AWQ_NIBBLES),
        grouped.scales.t(),
    )
    torch.testing.assert_close(read.dequantized(), grouped.dequantized())


@pytest.mark.parametrize("is_v2", [False, True])
def test_gptq_is_read_as_packed(grouped: Grouped, is_v2: bool) -> None:
    zeros = grouped.zeros.clamp_min(1.0)  # version 1 can not hold a zero point of 0
    grouped = Grouped(grouped.levels, grouped.scales, zeros)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    plain = tuple(range(8))
    stored = zeros if is_v2 else zeros - 1
    matrix = read_gptq(
        packed(grouped.levels[:, order], plain).t(),
        packed(stored.t(), plain),
        grouped.scales.t(),
        order // 16,
        is_v2=is_v2,
    )
    torch.testing.assert_close(matrix.dequantized(), grouped.dequantized()[:, order])


def test_tensors_that_do_not_fit_are_refused(grouped: Grouped) -> None:
    words = packed(grouped.levels.t(), AWQ_NIBBLES)
    with pytest.raises(CheckpointError, match="do not fit together"):
        read_awq(words, words[:4, :2], grouped.scales.t())
    with pytest.raises(CheckpointError, match="do not fit together"):
        read_gptq(words, words, grouped.scales.t(), torch.arange(3))


def test_errors_of_a_product_beside_bfloat16s() -> None:
    """Relative to the product of float32 weights, of normal numbers: stated, so that it is held."""
    weight, rows = made(256, 512), made(16, 512, seed=1)
    exact = rows @ weight.t()
    float8, scales = round_float8(weight)
    candidates = {
        "bfloat16": weight.to(torch.bfloat16).float(),
        "float8": float8.float() * scales,
        "int4": quantize_grouped(weight).dequantized(),
    }
    errors = {
        name: float((rows @ rounded.t() - exact).norm() / exact.norm())
        for name, rounded in candidates.items()
    }
    assert errors["bfloat16"] < 0.0025 < errors["float8"] < 0.035 < errors["int4"] < 0.13


def test_a_constant_matrix_survives() -> None:
    for value in (0.0, 0.7, -0.7):
        weight = torch.full((2, 128), value)
        torch.testing.assert_close(quantize_grouped(weight).dequantized(), weight)


PACKED = "thinker.model.layers.1."  # all matrices of one layer: attention and experts


def packed_checkpoint(oracle: Oracle, folder: Path, scheme: dict[str, Any]) -> dict[str, Tensor]:
    """The oracle's checkpoint with some matrices packed; returns what these should be read as."""
    tensors: dict[str, Tensor] = {}
    for path in oracle.folder.glob("*.safetensors"):
        tensors |= load_file(path)
    expected: dict[str, Tensor] = {}
    plain = tuple(range(8))
    for name in [n for n in tensors if n.startswith(PACKED) and n.endswith("proj.weight")]:
        grouped = quantize_grouped(tensors.pop(name), group=8)
        base = name.removesuffix("weight")
        if scheme["quant_method"] == "awq":
            words = packed(grouped.levels.t(), AWQ_NIBBLES), packed(grouped.zeros.t(), AWQ_NIBBLES)
        else:
            zeros = grouped.zeros.clamp_min(1.0)
            grouped = Grouped(grouped.levels, grouped.scales, zeros)
            words = packed(grouped.levels, plain).t(), packed(zeros.t() - 1, plain)
            tensors[base + "g_idx"] = torch.arange(grouped.levels.shape[1]) // 8
        tensors[base + "qweight"], tensors[base + "qzeros"] = (w.contiguous() for w in words)
        tensors[base + "scales"] = grouped.scales.t().contiguous()
        expected[name] = grouped.dequantized()
    raw = json.loads((oracle.folder / "config.json").read_text(encoding="utf-8"))
    raw["quantization_config"] = scheme
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return expected


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_a_packed_checkpoint_loads(oracle: Oracle, tmp_path: Path, method: str) -> None:
    expected = packed_checkpoint(oracle, tmp_path, {"quant_method": method, "bits": 4})
    cpu = torch.device("cpu")
    model = load_model(tmp_path, oracle.config, device=cpu, dtype=torch.float32)
    layer = model.thinker.model.layers[1]
    keys = expected[PACKED + "self_attn.k_proj.weight"]
    start = layer.self_attn.num_heads * layer.self_attn.head_dim
    torch.testing.assert_close(layer.self_attn.qkv_proj.weight[start : start + len(keys)], keys)
    down = expected[PACKED + "mlp.experts.3.down_proj.weight"]
    torch.testing.assert_close(layer.mlp.experts.down_proj[3], down)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"quant_method": "awq", "bits": 8}, "8 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv'"),
        ({"quant_method": "awq", "bits": 4, "version": None}, "packed for None"),
        ({"quant_method": "spqr", "bits": 4}, "'spqr'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": None}, "group_size of None"),
        ({}, "names no quant_method"),
        ([], r"must be an object, not \[\]"),
    ],
)
def test_other_packings_are_refused(
    oracle: Oracle, tmp_path: Path, scheme: object, message: str
) -> None:
    packed_checkpoint(oracle, tmp_path, {"quant_method": "awq", "bits": 4})
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, "quantization_config": scheme}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path, oracle.config, device=torch.device("cpu"), dtype=torch.float32)
