"""Vision encoder: equal to the reference, and grid by grid equal to the whole video."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from oracle import Oracle
from parts import filled
from torch import Tensor

from models.qwen3_omni.vision_encoder import MAX_GRID_TABLES, VisionEncoder

GRIDS = [(2, 2), (2, 8), (4, 6), (6, 6), (6, 10), (14, 4), (20, 30)]


@pytest.fixture(scope="module")
def encoder(oracle: Oracle) -> VisionEncoder:
    with torch.device("meta"):
        module = VisionEncoder(oracle.config.thinker.vision)
    return filled(module, oracle, "thinker.visual.")


def patches(num_grids: int, grid: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_grids * grid[0] * grid[1], 3 * 2 * 16 * 16, generator=generator)


def encode(
    encoder: VisionEncoder, pixels: Tensor, grid: tuple[int, int], num_grids: int = 1
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        features, deepstack = encoder(pixels, grid, num_grids)
    return features, deepstack


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("num_grids", [1, 3])
def test_equals_reference(
    encoder: VisionEncoder, oracle: Oracle, grid: tuple[int, int], num_grids: int
) -> None:
    pixels = patches(num_grids, grid)
    with torch.inference_mode():
        expected = oracle.model.thinker.model.visual(pixels, torch.tensor([[num_grids, *grid]]))
    features, deepstack = encode(encoder, pixels, grid, num_grids)
    assert features.shape[0] == num_grids * encoder.num_tokens(grid)
    assert_equal(features, expected.pooler_output)
    assert_equal(deepstack, torch.stack(expected.deepstack_features))


@pytest.mark.parametrize("grid", [(4, 6), (6, 10)])
def test_grid_by_grid_equals_whole_video(encoder: VisionEncoder, grid: tuple[int, int]) -> None:
    pixels = patches(4, grid)
    features, deepstack = encode(encoder, pixels, grid, 4)
    parts = [encode(encoder, part, grid) for part in pixels.chunk(4)]
    assert_equal(torch.cat([part[0] for part in parts]), features)
    assert_equal(torch.cat([part[1] for part in parts], dim=1), deepstack)


def test_a_grid_is_blind_to_the_others(encoder: VisionEncoder) -> None:
    first, second, third = (patches(1, (4, 6), seed) for seed in range(3))
    one, _ = encode(encoder, torch.cat([first, second]), (4, 6), 2)
    other, _ = encode(encoder, torch.cat([first, third]), (4, 6), 2)
    assert_equal(one[:6], other[:6])
    assert (one[6:] - other[6:]).abs().max() > 1e-2


def test_kept_tables_are_bounded_and_renewed(encoder: VisionEncoder) -> None:
    pixels = patches(1, (4, 6))
    before = encode(encoder, pixels, (4, 6))
    for width in range(2, 2 * MAX_GRID_TABLES + 8, 2):
        encode(encoder, patches(1, (2, width)), (2, width))
    assert (4, 6) not in encoder._tables
    assert len(encoder._tables) == MAX_GRID_TABLES
    after = encode(encoder, pixels, (4, 6))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_bfloat16_stays_near_float32(encoder: VisionEncoder) -> None:
    """Eight bits of mantissa through four blocks: within 3 % (root mean square)."""
    half = deepcopy(encoder).bfloat16()
    half.build_constants(torch.device("cpu"))
    pixels = patches(1, (6, 10))
    features, deepstack = encode(half, pixels.bfloat16(), (6, 10))
    expected, _ = encode(encoder, pixels, (6, 10))
    assert features.dtype == deepstack.dtype == torch.bfloat16
    error = (features.float() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()
    assert error < 0.03
