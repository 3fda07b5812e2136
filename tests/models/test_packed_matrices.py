"""Packed matrices: what rounding costs, that every way to multiply is one, and what is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models import packed_matrices
from models.errors import CheckpointError
from models.packed_matrices import KERNEL_ROWS, Float8Matrices, Int4Matrices, Int8Matrices
from models.quantized import Grouped

Packed = Int8Matrices | Float8Matrices | Int4Matrices
KINDS = [Int8Matrices, Float8Matrices, Int4Matrices]
# Rows and columns of the published experts, and of ones that no kernel can read.
SHAPES = [(1536, 2048), (2048, 768), (48, 64), (64, 24), (192, 320)]


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distance(ours: Tensor, exact: Tensor) -> float:
    return float((ours - exact).norm() / exact.norm())


def packed(kind: Callable[..., Packed], weights: Tensor) -> Packed:
    """Filled in halves, as a checkpoint's gate and up projections come."""
    matrices = kind(*weights.shape)
    half = weights.shape[1] // 2
    for index, matrix in enumerate(weights):
        matrices.put(index, half, matrix[half:])
        matrices.put(index, 0, matrix[:half])
    return matrices


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "bound"), list(zip(KINDS, (0.01, 0.03, 0.095), strict=True)))
def test_errors_of_rounding(
    kind: Callable[..., Packed], bound: float, shape: tuple[int, int]
) -> None:
    """Of normal numbers, relative; bfloat16's is 0.0017."""
    weights = made(2, *shape)
    matrices = packed(kind, weights)
    for index, matrix in enumerate(weights):
        assert 0.3 * bound < distance(matrices.dequantized(index), matrix) < bound


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_product_is_that_of_the_dequantized(
    kind: Callable[..., Packed], shape: tuple[int, int]
) -> None:
    """Few rows (by the CPU's kernel, in bfloat16, where it can), many, and one for each matrix."""
    matrices = packed(kind, made(3, *shape))
    rows = made(KERNEL_ROWS + 1, shape[1], seed=1)
    exact = [rows @ matrices.dequantized(index).t() for index in range(3)]
    assert distance(matrices.product(1, rows), exact[1]) < 2e-6
    assert distance(matrices.product(1, rows[:4]), exact[1][:4]) < 4e-3
    pairs = matrices.products(torch.tensor([2, 0, 2]), rows[:3])
    wanted = torch.stack((exact[2][0], exact[0][1], exact[2][2]))
    assert distance(pairs, wanted) < 2e-6


def test_without_a_kernel_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, rows = made(1, 128, 256), made(2, 256, seed=1)
    with_kernel = packed(Int4Matrices, weights)
    monkeypatch.setattr(packed_matrices, "_kernel_block", lambda: None)
    without = packed(Int4Matrices, weights)
    assert torch.equal(without.dequantized(0), with_kernel.dequantized(0))
    assert distance(with_kernel.product(0, rows), without.product(0, rows)) < 4e-3
    in_bfloat16 = with_kernel.product(0, rows.to(torch.bfloat16))
    assert in_bfloat16.dtype == torch.bfloat16
    assert distance(in_bfloat16.float(), without.product(0, rows)) < 6e-3


@pytest.mark.parametrize(("kind", "bits"), list(zip(KINDS, (8.03, 8.03, 4.51), strict=True)))
def test_bits_of_a_weight(kind: Callable[..., Packed], bits: float) -> None:
    with torch.device("meta"):
        matrices = kind(128, 1536, 2048)
    num_bytes = sum(parameter.nbytes for parameter in matrices.parameters())
    assert 8 * num_bytes / matrices.shape.numel() < bits


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_matrix_survives(kind: Callable[..., Packed], value: float) -> None:
    weights = torch.full((1, 4, 128), value)
    torch.testing.assert_close(
        packed(kind, weights).dequantized(0), weights[0], rtol=4e-3, atol=1e-8
    )


def published(rows: int, columns: int, group: int) -> Grouped:
    """As AWQ and GPTQ publish: scales are 16-bit numbers."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(0, 16, (rows, columns), generator=generator).to(torch.uint8)
    scales = torch.rand(rows, columns // group, generator=generator).half().float() + 0.01
    zeros = torch.randint(1, 16, (rows, columns // group), generator=generator).float()
    return Grouped(levels, scales, zeros)


def test_what_is_grouped_already_is_not_rounded_again() -> None:
    grouped = published(64, 256, 128)
    matrices = Int4Matrices(1, 64, 256, group=128)
    matrices.put(0, 0, grouped)
    ours, exact = matrices.dequantized(0), grouped.dequantized()
    assert distance(ours, exact) < 3e-3  # scales as bfloat16
    steps = grouped.scales.repeat_interleave(128, dim=1)
    assert bool(((ours - exact).abs() < 0.1 * steps).all())


def test_what_can_not_stay_packed_is_refused() -> None:
    grouped = published(64, 256, 64)
    with pytest.raises(CheckpointError, match="groups of 64, not of 128"):
        Int4Matrices(1, 64, 256, group=128).put(0, 0, grouped)
    shuffled = Grouped(grouped.levels, grouped.scales, grouped.zeros, torch.arange(256) % 4)
    with pytest.raises(CheckpointError, match="desc_act"):
        Int4Matrices(1, 64, 256, group=64).put(0, 0, shuffled)
    in_int8 = Int8Matrices(1, 64, 256)
    in_int8.put(0, 0, shuffled)
    assert distance(in_int8.dequantized(0), shuffled.dequantized()) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_have_the_spread_asked_for(kind: Callable[..., Packed]) -> None:
    matrices = kind(1, 256, 512)
    matrices.randomize(0.05, torch.Generator().manual_seed(0))
    assert 0.045 < float(matrices.dequantized(0).std()) < 0.055
