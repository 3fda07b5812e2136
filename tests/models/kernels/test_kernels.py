"""Each fused kernel equals its plain reference: on a GPU, or in Triton's interpreter on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.kernels import (
    decode_attention,
    experts,
    gated_mlp,
    language,
    norm_projection,
    packed_experts,
    ring_attention,
    rotary_cache,
    sampling,
    snake_convolution,
)
from models.packed_matrices import Float8Matrices, Int4Matrices, Int8Matrices, ScaledRows
from models.sampling import SamplingSettings

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(not language.can_run(DEVICE), reason="needs the package triton")
# The interpreter multiplies matrices of bfloat16 as if they were integers: float16 stands for it.
DTYPES = (torch.float32, torch.float16 if DEVICE.type == "cpu" else torch.bfloat16)
# The narrow dtypes are rounded at other places; on a GPU float32 sums come in another order.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
EPS = 1e-6


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def assert_near(fused: Tensor, plain: Tensor) -> None:
    error = TOLERANCE[plain.dtype]
    torch.testing.assert_close(fused, plain, rtol=error, atol=error * float(plain.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "has_norm"), [(1, True), (3, False), (17, True)])
def test_norm_projection(dtype: torch.dtype, rows: int, has_norm: bool) -> None:
    x, weight = drawn(rows, 200, dtype=dtype), drawn(72, 200, dtype=dtype, seed=1)
    gain = drawn(200, dtype=dtype, seed=2) if has_norm else None
    residual = drawn(rows, 72, dtype=dtype, seed=3) if rows > 1 else None
    arguments = (x, weight, gain, EPS, residual)
    assert_near(norm_projection.fused(*arguments), norm_projection.reference(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "has_norm"), [(1, True), (5, False)])
def test_gated_mlp(dtype: torch.dtype, rows: int, has_norm: bool) -> None:
    gain = drawn(160, dtype=dtype, seed=2) if has_norm else None
    arguments = (drawn(rows, 160, dtype=dtype), drawn(96, 160, dtype=dtype, seed=1), gain, EPS)
    assert_near(gated_mlp.fused(*arguments), gated_mlp.reference(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_norm", [True, False])
def test_rotary_cache(dtype: torch.dtype, has_norm: bool) -> None:
    rows, queries, kv_heads, size = 3, 4, 2, 32
    heads = drawn(rows, queries + 2 * kv_heads, size, dtype=dtype)
    gains = drawn(queries + kv_heads, size, dtype=dtype, seed=1) if has_norm else None
    rotary = (drawn(rows, size, dtype=dtype, seed=2), drawn(rows, size, dtype=dtype, seed=3))
    table = torch.tensor([[4, 1], [0, 5], [2, 3]], dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor([0, 16, 31], dtype=torch.int32, device=DEVICE)
    made = []
    for run in (rotary_cache.fused, rotary_cache.reference):
        pages = tuple(torch.zeros(6, kv_heads, 16, size, dtype=dtype, device=DEVICE) for _ in "kv")
        queries_made = run(heads, gains, EPS, rotary, (pages[0], pages[1]), table, lengths)
        made.append((queries_made, *pages))
    for fused, plain in zip(*made, strict=True):
        assert_near(fused, plain)
    assert int((made[0][1] != 0).any(-1).sum()) == rows * kv_heads  # and nothing else was written


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [1, 4])
def test_decode_attention(dtype: torch.dtype, group: int) -> None:
    kv_heads, size, page = 2, 32, 16
    pages = tuple(drawn(9, kv_heads, page, size, dtype=dtype, seed=seed) for seed in (1, 2))
    pages[1][0, :, 5:] = float("nan")  # never written, never to be seen
    table = torch.tensor([[3, 1, 7], [0, 0, 0], [2, 8, 5]], dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor([48, 5, 17], dtype=torch.int32, device=DEVICE)
    queries = drawn(3, kv_heads * group, size, dtype=dtype)
    arguments = (queries, (pages[0], pages[1]), table, lengths)
    assert_near(decode_attention.fused(*arguments), decode_attention.reference(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [1, 2, 8])
@pytest.mark.parametrize("window", [16, 72])
@pytest.mark.parametrize("new", [1, 2])
def test_ring_attention(dtype: torch.dtype, group: int, window: int, new: int) -> None:
    """Several positions in one launch are as many calls of the plain path, one after the other."""
    kv_heads, size, num_slots = 2, 24, 7
    slots = torch.tensor([5, 0, 3, 6, 2], device=DEVICE)
    positions = torch.tensor([0, 9, window - 1, window, 4 * window - 1], device=DEVICE)
    batch = len(slots)
    heads = drawn(new * batch, (group + 2) * kv_heads, size, dtype=dtype)
    has_norm = group > 1  # as the predictor and the vocoder have it
    gains = drawn((group + 1) * kv_heads, size, dtype=dtype, seed=1) if has_norm else None
    rotary = tuple(drawn(new * batch, size, dtype=dtype, seed=seed) for seed in (2, 3))
    rings = [
        [drawn(num_slots, kv_heads, window, size, dtype=dtype, seed=seed) for seed in (4, 5)]
        for _ in "fp"
    ]
    for part in rings[0] + rings[1]:
        for slot, position in zip(slots.tolist(), positions.tolist(), strict=True):
            part[slot, :, position:] = float("nan")  # never written, never to be seen
    untouched = rings[0][0][[1, 4]].clone()

    def run(attend: Callable[..., Tensor], ring: list[Tensor], at_once: int) -> Tensor:
        made = []
        for start in range(0, new, at_once):
            rows = slice(start * batch, (start + at_once) * batch)
            angles = (rotary[0][rows], rotary[1][rows])
            cache = (ring[0], ring[1])
            made.append(attend(heads[rows], gains, EPS, angles, cache, slots, positions + start))
        return torch.cat(made)

    assert_near(
        run(ring_attention.fused, rings[0], new), run(ring_attention.reference, rings[1], 1)
    )
    for fused, plain in zip(*rings, strict=True):
        assert torch.equal(fused.isnan(), plain.isnan())
        assert_near(fused.nan_to_num(), plain.nan_to_num())
    assert torch.equal(rings[0][0][[1, 4]], untouched)


@pytest.mark.parametrize("is_normalized", [True, False])
def test_routing(is_normalized: bool) -> None:
    logits = drawn(5, 24)
    ids, weights = experts.route_fused(logits, 3, is_normalized=is_normalized)
    plain_ids, plain_weights = experts.route_reference(logits, 3, is_normalized=is_normalized)
    assert ids.tolist() == plain_ids.tolist()
    assert_near(weights, plain_weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts(dtype: torch.dtype) -> None:
    rows = drawn(3, 80, dtype=dtype)
    chosen, weights = experts.route_reference(drawn(3, 6, seed=1), 2, is_normalized=True)
    gate_up, down = drawn(6, 48, 80, dtype=dtype, seed=2), drawn(6, 80, 24, dtype=dtype, seed=3)
    arguments = (rows, chosen, weights, gate_up, down)
    assert_near(experts.mix_fused(*arguments), experts.mix_reference(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [Int8Matrices, Float8Matrices, Int4Matrices])
@pytest.mark.parametrize(("size", "inner"), [(128, 64), (80, 24)])
def test_packed_experts(
    size: int, inner: int, kind: Callable[..., ScaledRows | Int4Matrices], dtype: torch.dtype
) -> None:
    """With rows in blocks as a CPU's kernel has them, and without."""
    rows = drawn(3, size, dtype=dtype)
    chosen, weights = experts.route_reference(drawn(3, 4, seed=1), 2, is_normalized=True)
    stacks = []
    for number, shape in enumerate(((4, 2 * inner, size), (4, size, inner))):
        matrices = kind(*shape)
        for index in range(4):
            numbers = drawn(*shape[1:], seed=10 * number + index).cpu()
            matrices.put(index, 0, numbers / shape[2] ** 0.5)  # sums stay within float16
        stacks.append(matrices.to(DEVICE))
    arguments = (rows, chosen, weights, *stacks)
    fused = packed_experts.mix_fused(*arguments)
    assert_near(fused, packed_experts.mix_reference(*arguments))


@pytest.mark.parametrize(("kernel", "dilation", "length"), [(7, 1, 20), (7, 9, 20), (1, 1, 70)])
def test_snake_convolution(kernel: int, dilation: int, length: int) -> None:
    rows, channels = 2, 40
    past = (kernel - 1) * dilation
    snake = (drawn(channels, seed=1).exp(), drawn(channels, seed=2).exp())
    weight, bias = drawn(channels, channels, kernel, seed=3), drawn(channels, seed=4)
    residual = drawn(rows, channels, length, seed=5) if kernel == 1 else None
    tails = [torch.zeros(rows, channels, past, device=DEVICE) for _ in "fp"]
    for step in range(3):  # the state goes on from step to step
        x = drawn(rows, channels, length, seed=10 + step)
        fused, plain = (
            run(x, snake, tail, weight, bias, dilation, residual)
            for run, tail in zip(
                (snake_convolution.fused, snake_convolution.reference), tails, strict=True
            )
        )
        assert_near(fused, plain)
        if past:
            assert_near(tails[0], tails[1])


SETTINGS = [
    SamplingSettings(do_sample=False, repetition_penalty=1.3),
    SamplingSettings(temperature=0.9, top_k=5, repetition_penalty=1.05),
    SamplingSettings(top_k=50, top_p=0.8),
    SamplingSettings(temperature=1.7),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sampling(dtype: torch.dtype) -> None:
    logits = 3.0 * drawn(4, 100, dtype=dtype)
    logits[:, 90:] = float("-inf")
    seen = drawn(4, 100, seed=1) > 0.5
    draws, counted = (sampling.Draws.of(SETTINGS, [1, 2, 2**62 + 3, 4], DEVICE) for _ in range(2))
    for _ in range(2):
        for offset in range(4):
            plain = sampling.reference(logits, counted, seen)
            assert sampling.fused(logits, draws, seen, offset).tolist() == plain.tolist()
            counted.advance()
        draws.advance(4)
