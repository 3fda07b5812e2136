"""Routing and the mixture of experts for few tokens: only what was chosen is read, without a sync.

Two launches: activations of all token-expert pairs, then each token's weighted sum (no atomic
additions, so the result is the same at every run and in any company). Pairs are taken in order of
their expert, one weight tile after the other: tokens that share an expert find its tile in the
second-level cache. Many tokens belong to the grouped product of `models.feed_forward`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, cdiv, check_rows, jit, next_power_of_2, tl

BLOCK_OUT = 16
BLOCK_IN = 256


def route_reference(logits: Tensor, top_k: int, *, is_normalized: bool) -> tuple[Tensor, Tensor]:
    """Plain PyTorch of `route_fused`."""
    weights, experts = logits.softmax(dim=-1, dtype=torch.float32).topk(top_k, dim=-1)
    if is_normalized:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return experts, weights


def route_fused(logits: Tensor, top_k: int, *, is_normalized: bool) -> tuple[Tensor, Tensor]:
    """Each token's experts, best first, and their weights: [B, k] int64 and [B, k] float32.

    Args:
        logits: [B, num_experts].
        is_normalized: whether the weights of a token are made to sum to one.
    """
    num_rows, num_experts = logits.shape
    check_rows("logits", logits, (num_rows, num_experts))
    experts = torch.empty(num_rows, top_k, dtype=torch.int64, device=logits.device)
    weights = torch.empty(num_rows, top_k, dtype=torch.float32, device=logits.device)
    _route[(num_rows,)](
        logits,
        experts,
        weights,
        num_experts,
        TOP_K=top_k,
        IS_NORMALIZED=is_normalized,
        BLOCK=next_power_of_2(num_experts),
    )
    return experts, weights


def mix_reference(
    rows: Tensor, experts: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Plain PyTorch of `mix_fused`."""
    num_rows, top_k = experts.shape
    chosen = experts.flatten()
    states = rows.repeat_interleave(top_k, dim=0).unsqueeze(-1)  # [B * k, H, 1]
    gate, up = torch.bmm(gate_up[chosen], states).chunk(2, dim=1)
    made = torch.bmm(down[chosen], F.silu(gate) * up).view(num_rows, top_k, -1)
    return torch.bmm(weights.to(rows.dtype).unsqueeze(1), made).squeeze(1)


def mix_fused(
    rows: Tensor, experts: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """[B, H] -> [B, H].

    Args:
        rows: [B, H], normed.
        experts: [B, k] int64. weights: [B, k] float32.
        gate_up: [num_experts, 2 * I, H]. down: [num_experts, H, I].
    """
    num_rows, top_k = experts.shape
    size, inner = down.shape[1:]
    check_rows("rows", rows, (num_rows, size))
    check_rows("gate_up", gate_up, (down.shape[0], 2 * inner, size))
    check_rows("down", down, (gate_up.shape[0], size, inner))
    order = experts.flatten().argsort()  # [B * k]
    active = torch.empty(num_rows, top_k, inner, dtype=rows.dtype, device=rows.device)
    _activate[(num_rows * top_k, cdiv(inner, BLOCK_OUT))](
        rows,
        order,
        experts,
        gate_up,
        active,
        inner,
        size,
        TOP_K=top_k,
        OUT=BLOCK_OUT,
        IN=BLOCK_IN,
    )
    mixed = torch.empty_like(rows)
    _mix[(num_rows, cdiv(size, BLOCK_OUT))](
        active,
        experts,
        weights,
        down,
        mixed,
        inner,
        size,
        TOP_K=top_k,
        OUT=BLOCK_OUT,
        IN=BLOCK_IN,
    )
    return mixed


@jit
def _route(
    logits_ptr: Pointer,
    experts_ptr: Pointer,
    weights_ptr: Pointer,
    num_experts: int,
    TOP_K: tl.constexpr,
    IS_NORMALIZED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One token: the greatest probability k times, each then taken out."""
    row = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    has = expert < num_experts
    logits = tl.load(logits_ptr + row * num_experts + expert, mask=has, other=-float("inf"))
    logits = logits.to(tl.float32)
    shares = tl.exp(logits - tl.max(logits, axis=0))
    shares = shares / tl.sum(shares, axis=0)
    left = tl.where(has, shares, -1.0)
    total = 1.0
    if IS_NORMALIZED:
        total = 0.0
        for _ in range(TOP_K):
            total += tl.max(left, axis=0)
            left = tl.where(expert == tl.argmax(left, axis=0), -1.0, left)
        left = tl.where(has, shares, -1.0)
    for place in range(TOP_K):
        winner = tl.argmax(left, axis=0)
        tl.store(experts_ptr + row * TOP_K + place, winner.to(tl.int64))
        tl.store(weights_ptr + row * TOP_K + place, tl.max(left, axis=0) / total)
        left = tl.where(expert == winner, -1.0, left)


@jit
def _activate(
    rows_ptr: Pointer,
    order_ptr: Pointer,
    experts_ptr: Pointer,
    weight_ptr: Pointer,
    active_ptr: Pointer,
    inner: int,
    size: int,
    TOP_K: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
) -> None:
    """One tile of silu(gate) * up of one pair."""
    pair = tl.load(order_ptr + tl.program_id(0))
    expert = tl.load(experts_ptr + pair)
    out = tl.program_id(1) * OUT + tl.arange(0, OUT)
    has_out = out < inner
    base = weight_ptr + expert * 2 * inner * size
    gate = tl.zeros((OUT,), dtype=tl.float32)
    up = tl.zeros((OUT,), dtype=tl.float32)
    for start in range(0, size, IN):
        column = start + tl.arange(0, IN)
        has_column = column < size
        x = tl.load(rows_ptr + pair // TOP_K * size + column, mask=has_column, other=0.0)
        x = x.to(tl.float32)[None, :]
        where = out[:, None] * size + column[None, :]
        has = has_out[:, None] & has_column[None, :]
        gate += tl.sum(tl.load(base + where, mask=has, other=0.0).to(tl.float32) * x, axis=1)
        up_weight = tl.load(base + inner * size + where, mask=has, other=0.0)
        up += tl.sum(up_weight.to(tl.float32) * x, axis=1)
    made = gate * tl.sigmoid(gate) * up
    tl.store(active_ptr + pair * inner + out, made.to(active_ptr.dtype.element_ty), mask=has_out)


@jit
def _mix(
    active_ptr: Pointer,
    experts_ptr: Pointer,
    weights_ptr: Pointer,
    weight_ptr: Pointer,
    mixed_ptr: Pointer,
    inner: int,
    size: int,
    TOP_K: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
) -> None:
    """One tile of one token: its experts' down projections, weighted, best first."""
    row = tl.program_id(0)
    out = tl.program_id(1) * OUT + tl.arange(0, OUT)
    has_out = out < size
    total = tl.zeros((OUT,), dtype=tl.float32)
    for place in range(TOP_K):
        expert = tl.load(experts_ptr + row * TOP_K + place)
        base = weight_ptr + expert * size * inner
        made = tl.zeros((OUT,), dtype=tl.float32)
        for start in range(0, inner, IN):
            column = start + tl.arange(0, IN)
            has_column = column < inner
            source = active_ptr + (row * TOP_K + place) * inner + column
            x = tl.load(source, mask=has_column, other=0.0).to(tl.float32)
            where = out[:, None] * inner + column[None, :]
            has = has_out[:, None] & has_column[None, :]
            w = tl.load(base + where, mask=has, other=0.0).to(tl.float32)
            made += tl.sum(w * x[None, :], axis=1)
        total += tl.load(weights_ptr + row * TOP_K + place) * made
    tl.store(mixed_ptr + row * size + out, total.to(mixed_ptr.dtype.element_ty), mask=has_out)
