"""The first half of a SwiGLU feed-forward: norm, gate and up projections, activation, in one pass.

The second half is a plain projection with a residual: `norm_projection` without a norm.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, cdiv, check_rows, jit, next_power_of_2, tl

BLOCK_ROWS = 16
BLOCK_OUT = 32
BLOCK_IN_BYTES = 256  # of a row: by as many numbers of float32 as of bfloat16, registers spill


def reference(rows: Tensor, gate_up: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """Plain PyTorch of `fused`."""
    normed = rows if gain is None else F.rms_norm(rows, (rows.shape[-1],), gain, eps)
    gate, up = F.linear(normed, gate_up).chunk(2, dim=-1)
    return F.silu(gate) * up


def fused(rows: Tensor, gate_up: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """[B, H] -> silu(gate) * up, [B, I].

    Args:
        rows: [B, H].
        gate_up: [2 * I, H], the gate's rows first.
        gain: [H], the norm's weight; None: the rows are normed already.
    """
    num_rows, size = rows.shape
    inner = gate_up.shape[0] // 2
    check_rows("gate_up", gate_up, (2 * inner, size))
    check_rows("rows", rows, (num_rows, size))
    made = torch.empty(num_rows, inner, dtype=rows.dtype, device=rows.device)
    block_rows = max(BLOCK_ROWS, min(64, next_power_of_2(num_rows)))
    _kernel[(cdiv(inner, BLOCK_OUT), cdiv(num_rows, block_rows))](
        rows,
        gate_up,
        gain,
        made,
        num_rows,
        inner,
        size,
        eps,
        HAS_NORM=gain is not None,
        ROWS=block_rows,
        OUT=BLOCK_OUT,
        IN=BLOCK_IN_BYTES // rows.element_size(),
    )
    return made


@jit
def _kernel(
    rows_ptr: Pointer,
    weight_ptr: Pointer,
    gain_ptr: Pointer,
    made_ptr: Pointer,
    num_rows: int,
    inner: int,
    size: int,
    eps: float,
    HAS_NORM: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
) -> None:
    """One tile [ROWS, OUT] of the activations."""
    out = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    has_row, has_out = row < num_rows, out < inner
    gate = tl.zeros((ROWS, OUT), dtype=tl.float32)
    up = tl.zeros((ROWS, OUT), dtype=tl.float32)
    squares = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, size, IN):
        column = start + tl.arange(0, IN)
        has_column = column < size
        x = tl.load(
            rows_ptr + row[:, None] * size + column[None, :],
            mask=has_row[:, None] & has_column[None, :],
            other=0.0,
        )
        where = out[None, :].to(tl.int64) * size + column[:, None]
        has = has_out[None, :] & has_column[:, None]
        gate_weight = tl.load(weight_ptr + where, mask=has, other=0.0)
        up_weight = tl.load(weight_ptr + inner * size + where, mask=has, other=0.0)
        if HAS_NORM:
            gain = tl.load(gain_ptr + column, mask=has_column, other=0.0)
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=1)
            x = (wide * gain.to(tl.float32)[None, :]).to(x.dtype)
        gate += tl.dot(x, gate_weight, input_precision="ieee")
        up += tl.dot(x, up_weight, input_precision="ieee")
    if HAS_NORM:
        scale = tl.rsqrt(squares / size + eps)[:, None]
        gate, up = gate * scale, up * scale
    made = gate * tl.sigmoid(gate) * up
    has = has_row[:, None] & has_out[None, :]
    where = row[:, None] * inner + out[None, :]
    tl.store(made_ptr + where, made.to(made_ptr.dtype.element_ty), mask=has)
