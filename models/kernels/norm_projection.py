"""Root-mean-square norm and matrix product of few rows in one pass over the weights.

A decode step is bound by reading `weight` once. Norming first would cost a launch and a round trip
through memory; here each program sums the squares of its rows while it multiplies, and scales the
products at the end (the norm is one factor a row). Rounding: the sums are float32 throughout, where
the plain path rounds the normed rows to their dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, cdiv, check_rows, jit, next_power_of_2, tl

BLOCK_ROWS = 16  # the least that the matrix unit takes; rows beyond are masked
BLOCK_OUT = 32
BLOCK_IN = 128


def reference(
    rows: Tensor, weight: Tensor, gain: Tensor | None, eps: float, residual: Tensor | None
) -> Tensor:
    """Plain PyTorch of `fused`."""
    normed = rows if gain is None else F.rms_norm(rows, (rows.shape[-1],), gain, eps)
    projected = F.linear(normed, weight)
    return projected if residual is None else residual + projected


def fused(
    rows: Tensor, weight: Tensor, gain: Tensor | None, eps: float, residual: Tensor | None
) -> Tensor:
    """[B, H] -> [B, N].

    Args:
        rows: [B, H].
        weight: [N, H].
        gain: [H], the norm's weight; None multiplies the rows as they are.
        residual: [B, N], added to the product.
    """
    num_rows, size = rows.shape
    num_out = weight.shape[0]
    check_rows("weight", weight, (num_out, size))
    check_rows("rows", rows, (num_rows, size))
    if residual is not None:
        check_rows("residual", residual, (num_rows, num_out))
    made = torch.empty(num_rows, num_out, dtype=rows.dtype, device=rows.device)
    block_rows = max(BLOCK_ROWS, min(64, next_power_of_2(num_rows)))
    _kernel[(cdiv(num_out, BLOCK_OUT), cdiv(num_rows, block_rows))](
        rows,
        weight,
        gain,
        residual,
        made,
        num_rows,
        num_out,
        size,
        eps,
        HAS_NORM=gain is not None,
        HAS_RESIDUAL=residual is not None,
        ROWS=block_rows,
        OUT=BLOCK_OUT,
        IN=BLOCK_IN,
    )
    return made


@jit
def _kernel(
    rows_ptr: Pointer,
    weight_ptr: Pointer,
    gain_ptr: Pointer,
    residual_ptr: Pointer,
    made_ptr: Pointer,
    num_rows: int,
    num_out: int,
    size: int,
    eps: float,
    HAS_NORM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
) -> None:
    """One tile [ROWS, OUT] of the product."""
    out = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    has_row, has_out = row < num_rows, out < num_out
    total = tl.zeros((ROWS, OUT), dtype=tl.float32)
    squares = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, size, IN):
        column = start + tl.arange(0, IN)
        has_column = column < size
        x = tl.load(
            rows_ptr + row[:, None] * size + column[None, :],
            mask=has_row[:, None] & has_column[None, :],
            other=0.0,
        )
        w = tl.load(
            weight_ptr + out[None, :].to(tl.int64) * size + column[:, None],
            mask=has_out[None, :] & has_column[:, None],
            other=0.0,
        )
        if HAS_NORM:
            gain = tl.load(gain_ptr + column, mask=has_column, other=0.0)
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=1)
            x = (wide * gain.to(tl.float32)[None, :]).to(x.dtype)
        total += tl.dot(x, w, input_precision="ieee")
    if HAS_NORM:
        total = total * tl.rsqrt(squares / size + eps)[:, None]
    where = row[:, None] * num_out + out[None, :]
    has = has_row[:, None] & has_out[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual_ptr + where, mask=has, other=0.0).to(tl.float32)
    tl.store(made_ptr + where, total.to(made_ptr.dtype.element_ty), mask=has)
