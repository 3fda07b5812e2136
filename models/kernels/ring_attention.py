"""Attention over short pasts in one launch: norm, rotary turn, cache write and softmax together.

The whole visible past of a sequence lies in a ring: position p at p % window of its slot. One
program makes one key/value head of one sequence: it holds the ring in registers, puts the new keys
and values into it there, and writes them out for the next step. The group's queries and their key
are one tile, so norm and turn are done once for both. Longer pasts belong to `rotary_cache` and
`decode_attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, check_rows, jit, next_power_of_2, tl
from models.kernels.rotary_cache import turned_heads

MAX_WINDOW = 128  # one program holds a ring of keys and one of values
BLOCK = 16  # the least that the matrix unit takes


def reference(
    heads: Tensor,
    gains: Tensor | None,
    eps: float,
    rotary: tuple[Tensor, Tensor],
    ring: tuple[Tensor, Tensor],
    slots: Tensor,
    positions: Tensor,
) -> Tensor:
    """Plain PyTorch of `fused`."""
    num_kv_heads, window, size = ring[0].shape[1:]
    batch, num_turned = len(slots), heads.shape[1] - num_kv_heads
    num_queries = num_turned - num_kv_heads
    turned = turned_heads(heads[:, :num_turned], gains, eps, rotary)
    entries = torch.arange(window, device=heads.device)
    made = []
    for new, start in enumerate(range(0, len(heads), batch)):
        rows = slice(start, start + batch)
        place = positions + new
        for part, heads_new in zip(
            ring, (turned[rows, num_queries:], heads[rows, num_turned:]), strict=True
        ):
            part[slots, :, place % window] = heads_new
        is_seen = (entries <= place[:, None])[:, None]  # [B, 1, window]
        # What was never written may be anything, and 0 * NaN is NaN.
        keys, values = (
            part.index_select(0, slots).masked_fill(~is_seen[..., None], 0.0) for part in ring
        )  # [B, Hkv, window, D]
        queries = turned[rows, :num_queries].reshape(batch, num_kv_heads, -1, size)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=is_seen[:, None])
        made.append(mixed.reshape(batch, num_queries, size))
    return torch.cat(made)


def fused(
    heads: Tensor,
    gains: Tensor | None,
    eps: float,
    rotary: tuple[Tensor, Tensor],
    ring: tuple[Tensor, Tensor],
    slots: Tensor,
    positions: Tensor,
) -> Tensor:
    """Mixed values [P * B, Hq, D] of P new positions of each of B sequences.

    Keys and values are written in place, position after position: each sees the ones before it.

    Args:
        heads: [P * B, Hq + 2 * Hkv, D], a packed projection; row p * B + b is position
            `positions[b] + p` of sequence b. P is 1 or 2: the kernel is compiled for each.
        gains: [Hq + Hkv, D], weights of both norms; None: there is no norm.
        rotary: cosines and sines, [P * B, D] each; the first half of the sines is negated.
        ring: keys and values, [num_slots, Hkv, window, D] each; all positions before the new ones
            that the window holds have been written, the rest is never seen.
        slots: [B] int64; rows that share one spoil each other.
        positions: [B] int64.
    """
    num_rows, num_heads, size = heads.shape
    num_slots, num_kv_heads, window, _ = ring[0].shape
    batch, num_queries = len(slots), num_heads - 2 * num_kv_heads
    assert window <= MAX_WINDOW, f"a ring of {window} positions: {MAX_WINDOW} fit"
    assert num_rows % batch == 0, f"{num_rows} rows are not of {batch} sequences"
    check_rows("heads", heads, (num_rows, num_heads, size))
    for name, part in zip(("cosines", "sines"), rotary, strict=True):
        check_rows(name, part, (num_rows, size))
    for name, part in zip(("keys", "values"), ring, strict=True):
        check_rows(name, part, (num_slots, num_kv_heads, window, size))
    group = num_queries // num_kv_heads
    mixed = torch.empty(num_rows, num_queries, size, dtype=heads.dtype, device=heads.device)
    _kernel[(num_kv_heads, batch)](
        heads,
        gains,
        *rotary,
        *ring,
        slots,
        positions,
        mixed,
        eps,
        size**-0.5,
        HAS_NORM=gains is not None,
        NEW=num_rows // batch,
        GROUP=group,
        WINDOW=window,
        SIZE=size,
        MEMBERS=max(BLOCK, next_power_of_2(group + 1)),
        ENTRIES=max(BLOCK, next_power_of_2(window)),
        LANES=max(BLOCK, next_power_of_2(size)),
    )
    return mixed


@jit
def _kernel(
    heads_ptr: Pointer,
    gains_ptr: Pointer,
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    keys_ptr: Pointer,
    values_ptr: Pointer,
    slots_ptr: Pointer,
    positions_ptr: Pointer,
    mixed_ptr: Pointer,
    eps: float,
    scale: float,
    HAS_NORM: tl.constexpr,
    NEW: tl.constexpr,
    GROUP: tl.constexpr,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    MEMBERS: tl.constexpr,
    ENTRIES: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    """One key/value head of one sequence, the new positions in their order; nobody else touches
    this part of the ring.
    """
    kv_head, row = tl.program_id(0), tl.program_id(1)
    num_kv_heads, batch = tl.num_programs(0), tl.num_programs(1)
    member, entry, lane = tl.arange(0, MEMBERS), tl.arange(0, ENTRIES), tl.arange(0, LANES)
    has_lane = lane < SIZE
    num_queries = num_kv_heads * GROUP
    # Member GROUP of the tile is the key; those beyond are the key again and go nowhere.
    head = tl.where(member < GROUP, kv_head * GROUP + member, num_queries + kv_head)
    position = tl.load(positions_ptr + row)
    ring = (tl.load(slots_ptr + row) * num_kv_heads + kv_head) * WINDOW * SIZE
    where = ring + entry[:, None] * SIZE + lane[None, :]
    has = ((entry < position) & (entry < WINDOW))[:, None] & has_lane[None, :]
    keys = tl.load(keys_ptr + where, mask=has, other=0.0)
    values = tl.load(values_ptr + where, mask=has, other=0.0)
    tl.debug_barrier()  # all of the ring is read before any of it is written
    for new in tl.static_range(NEW):
        line = new * batch + row
        source = heads_ptr + line * (num_queries + 2 * num_kv_heads) * SIZE
        angle = line * SIZE
        tile = _turned(
            source, gains_ptr, cos_ptr + angle, sin_ptr + angle, head, lane, eps, HAS_NORM, SIZE
        ).to(keys.dtype)
        key = tl.sum(tl.where((member == GROUP)[:, None], tile, 0.0), axis=0).to(keys.dtype)
        source += (num_queries + num_kv_heads + kv_head) * SIZE
        value = tl.load(source + lane, mask=has_lane, other=0.0)
        place = (position + new) % WINDOW
        target = ring + place * SIZE + lane
        tl.store(keys_ptr + target, key, mask=has_lane)
        tl.store(values_ptr + target, value, mask=has_lane)
        is_here = (entry == place)[:, None]
        keys = tl.where(is_here, key[None, :], keys)
        values = tl.where(is_here, value[None, :], values)
        is_seen = (entry <= position + new) & (entry < WINDOW)
        scores = tl.dot(tile, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(is_seen[None, :], scores, -float("inf"))
        shares = tl.exp(scores - tl.max(scores, axis=1)[:, None])
        mixed = tl.dot(shares.to(values.dtype), values, input_precision="ieee")
        mixed = mixed / tl.sum(shares, axis=1)[:, None]
        tl.store(
            mixed_ptr + (line * num_queries + head[:, None]) * SIZE + lane[None, :],
            mixed.to(mixed_ptr.dtype.element_ty),
            mask=(member < GROUP)[:, None] & has_lane[None, :],
        )


@jit
def _turned(
    heads_ptr: Pointer,
    gains_ptr: Pointer,
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    head: tl.tensor,
    lane: tl.tensor,
    eps: float,
    HAS_NORM: tl.constexpr,
    SIZE: tl.constexpr,
) -> tl.tensor:
    """Some heads of one row after norm and turn, [MEMBERS, LANES] float32.

    They are loaded twice, the second time as the turn pairs them: lane i with i + SIZE / 2.
    """
    has_lane = lane < SIZE
    own = head[:, None] * SIZE + lane[None, :]
    pair = head[:, None] * SIZE + ((lane + SIZE // 2) % SIZE)[None, :]
    has = has_lane[None, :]
    x = tl.load(heads_ptr + own, mask=has, other=0.0).to(tl.float32)
    paired = tl.load(heads_ptr + pair, mask=has, other=0.0).to(tl.float32)
    if HAS_NORM:
        factor = tl.rsqrt(tl.sum(x * x, axis=1) / SIZE + eps)[:, None]
        x = x * factor * tl.load(gains_ptr + own, mask=has, other=0.0).to(tl.float32)
        gain = tl.load(gains_ptr + pair, mask=has, other=0.0).to(tl.float32)
        paired = paired * factor * gain
    cos = tl.load(cos_ptr + lane, mask=has_lane, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + lane, mask=has_lane, other=0.0).to(tl.float32)[None, :]
    return x * cos + paired * sin
