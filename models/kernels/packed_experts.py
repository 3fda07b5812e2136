"""The mixture of packed experts for few tokens: levels are read where they lie, without a sync.

Two products and two small operations between and after them; a product reads the matrix that each
token-expert pair chose, dequantizes a tile in registers and adds up in float32. Layouts are those
of `models.packed_matrices`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, cdiv, check_rows, jit, next_power_of_2, tl
from models.packed_matrices import Int4Matrices, PackedMatrices, ScaledRows

BLOCK_OUT = 16
BLOCK_IN = 256
MAX_GROUP = 256  # columns of a tile of four-bit levels

Products = Callable[[PackedMatrices, Tensor, Tensor], Tensor]


def mix_reference(
    rows: Tensor, experts: Tensor, weights: Tensor, gate_up: PackedMatrices, down: PackedMatrices
) -> Tensor:
    """Plain PyTorch of `mix_fused`."""
    return _mix(rows, experts, weights, gate_up, down, _products_plain)


def mix_fused(
    rows: Tensor, experts: Tensor, weights: Tensor, gate_up: PackedMatrices, down: PackedMatrices
) -> Tensor:
    """[B, H] -> [B, H].

    Args:
        rows: [B, H], normed.
        experts: [B, k] int64. weights: [B, k] float32.
        gate_up: [num_experts, 2 * I, H]. down: [num_experts, H, I].
    """
    return _mix(rows, experts, weights, gate_up, down, products_fused)


def products_fused(matrices: PackedMatrices, chosen: Tensor, inputs: Tensor) -> Tensor:
    """[P, H] -> [P, N], row p by matrix `chosen[p]`: `PackedMatrices.products`."""
    _, rows, columns = matrices.shape
    check_rows("inputs", inputs, (len(chosen), columns))
    made = torch.empty(len(chosen), rows, dtype=inputs.dtype, device=inputs.device)
    if isinstance(matrices, ScaledRows):
        _multiply_scaled[(len(chosen), cdiv(rows, BLOCK_OUT))](
            inputs,
            chosen,
            matrices.levels,
            matrices.scales,
            made,
            rows,
            columns,
            OUT=BLOCK_OUT,
            IN=BLOCK_IN,
        )
        return made
    assert isinstance(matrices, Int4Matrices), matrices
    assert matrices.group <= MAX_GROUP, matrices.group
    half = matrices.levels.shape[3]
    _multiply_int4[(len(chosen), matrices.levels.shape[1])](
        inputs,
        chosen,
        matrices.levels,
        matrices.steps,
        made,
        rows,
        columns,
        GROUP=matrices.group,
        HALF=half,
        IN=next_power_of_2(matrices.group),
        OUT=next_power_of_2(half),
    )
    return made


def _products_plain(matrices: PackedMatrices, chosen: Tensor, inputs: Tensor) -> Tensor:
    return matrices.products(chosen, inputs)


def _mix(
    rows: Tensor,
    experts: Tensor,
    weights: Tensor,
    gate_up: PackedMatrices,
    down: PackedMatrices,
    products: Products,
) -> Tensor:
    num_rows, top_k = experts.shape
    chosen = experts.flatten()
    states = rows.repeat_interleave(top_k, dim=0)  # [B * k, H]
    gate, up = products(gate_up, chosen, states).chunk(2, dim=-1)
    made = products(down, chosen, F.silu(gate) * up).view(num_rows, top_k, -1)
    return torch.bmm(weights.to(rows.dtype).unsqueeze(1), made).squeeze(1)


@jit
def _multiply_scaled(
    inputs_ptr: Pointer,
    chosen_ptr: Pointer,
    levels_ptr: Pointer,
    scales_ptr: Pointer,
    made_ptr: Pointer,
    rows: int,
    columns: int,
    OUT: tl.constexpr,
    IN: tl.constexpr,
) -> None:
    """One tile of rows of one pair's matrix."""
    pair = tl.program_id(0)
    expert = tl.load(chosen_ptr + pair)
    out = tl.program_id(1) * OUT + tl.arange(0, OUT)
    has_out = out < rows
    base = levels_ptr + expert * rows * columns
    total = tl.zeros((OUT,), dtype=tl.float32)
    for start in range(0, columns, IN):
        column = start + tl.arange(0, IN)
        has_column = column < columns
        x = tl.load(inputs_ptr + pair * columns + column, mask=has_column, other=0.0)
        where = out[:, None] * columns + column[None, :]
        has = has_out[:, None] & has_column[None, :]
        levels = tl.load(base + where, mask=has, other=0.0).to(tl.float32)
        total += tl.sum(levels * x.to(tl.float32)[None, :], axis=1)
    scale = tl.load(scales_ptr + expert * rows + out, mask=has_out, other=0.0).to(tl.float32)
    made = (total * scale).to(made_ptr.dtype.element_ty)
    tl.store(made_ptr + pair * rows + out, made, mask=has_out)


@jit
def _multiply_int4(
    inputs_ptr: Pointer,
    chosen_ptr: Pointer,
    levels_ptr: Pointer,
    steps_ptr: Pointer,
    made_ptr: Pointer,
    rows: int,
    columns: int,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
) -> None:
    """One block of rows of one pair's matrix, group by group: the lower half of the rows lies in
    the low four bits of the bytes, the upper half in the high ones.
    """
    pair = tl.program_id(0)
    block = tl.program_id(1)
    expert = tl.load(chosen_ptr + pair)
    out = tl.arange(0, OUT)
    has_out = out < HALF
    row = block * 2 * HALF + out
    base = levels_ptr + (expert * (rows // (2 * HALF)) + block) * columns * HALF
    steps = steps_ptr + expert * (columns // GROUP) * rows * 2
    lower = tl.zeros((OUT,), dtype=tl.float32)
    upper = tl.zeros((OUT,), dtype=tl.float32)
    inside = tl.arange(0, IN)
    has_inside = inside < GROUP
    for group in range(columns // GROUP):
        column = group * GROUP + inside
        x = tl.load(inputs_ptr + pair * columns + column, mask=has_inside, other=0.0)
        x = x.to(tl.float32)
        where = column[:, None] * HALF + out[None, :]
        has = has_inside[:, None] & has_out[None, :]
        packed = tl.load(base + where, mask=has, other=0)
        low = tl.sum(((packed & 15).to(tl.float32) - 8.0) * x[:, None], axis=0)
        high = tl.sum(((packed >> 4).to(tl.float32) - 8.0) * x[:, None], axis=0)
        sum_x = tl.sum(x, axis=0)
        step = steps + (group * rows + row) * 2
        scale = tl.load(step, mask=has_out, other=0.0).to(tl.float32)
        offset = tl.load(step + 1, mask=has_out, other=0.0).to(tl.float32)
        lower += low * scale + sum_x * offset
        step += HALF * 2
        scale = tl.load(step, mask=has_out, other=0.0).to(tl.float32)
        offset = tl.load(step + 1, mask=has_out, other=0.0).to(tl.float32)
        upper += high * scale + sum_x * offset
    made = made_ptr + pair * rows + row
    tl.store(made, lower.to(made_ptr.dtype.element_ty), mask=has_out)
    tl.store(made + HALF, upper.to(made_ptr.dtype.element_ty), mask=has_out)
