"""Query/key norm, rotary turn and the write of keys and values into a paged cache, in one launch.

A page holds `page_size` positions of one sequence, for one layer: [num_kv_heads, page_size,
head_dim]. Row b of `page_table` names the pages of sequence b in order; its new position is
`lengths[b]`. Everything is read from the device, so that the launch is the same at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, check_rows, jit, tl


def reference(
    heads: Tensor,
    gains: Tensor | None,
    eps: float,
    rotary: tuple[Tensor, Tensor],
    pages: tuple[Tensor, Tensor],
    page_table: Tensor,
    lengths: Tensor,
) -> Tensor:
    """Plain PyTorch of `fused`."""
    keys_pages, values_pages = pages
    num_kv_heads, page_size = keys_pages.shape[1:3]
    num_queries = heads.shape[1] - 2 * num_kv_heads
    turned = turned_heads(heads[:, :-num_kv_heads], gains, eps, rotary)
    values = heads[:, -num_kv_heads:]
    page = page_table.gather(1, (lengths // page_size)[:, None].long())[:, 0].long()
    offset = (lengths % page_size).long()
    keys_pages[page, :, offset] = turned[:, num_queries:]
    values_pages[page, :, offset] = values
    return turned[:, :num_queries].contiguous()


def turned_heads(
    heads: Tensor, gains: Tensor | None, eps: float, rotary: tuple[Tensor, Tensor]
) -> Tensor:
    """Norm, where there are gains [N, D], and rotary turn: [B, N, D] -> [B, N, D]."""
    cos, sin = (part[:, None] for part in rotary)  # [B, 1, D]
    size = heads.shape[-1]
    if gains is not None:
        heads = F.rms_norm(heads, (size,), None, eps) * gains
    return torch.addcmul(heads * cos, heads.roll(size // 2, dims=-1), sin)


def fused(
    heads: Tensor,
    gains: Tensor | None,
    eps: float,
    rotary: tuple[Tensor, Tensor],
    pages: tuple[Tensor, Tensor],
    page_table: Tensor,
    lengths: Tensor,
) -> Tensor:
    """Turned queries [B, Hq, D]; keys and values are written in place.

    Args:
        heads: [B, Hq + 2 * Hkv, D], a packed projection.
        gains: [Hq + Hkv, D], weights of both norms; None: there is no norm.
        rotary: cosines and sines, [B, D] each; the first half of the sines is negated.
        pages: keys and values, [num_pages, Hkv, page_size, D] each.
        page_table: [B, max_pages] int32. lengths: [B] int32, positions before this one.
    """
    num_rows, num_heads, size = heads.shape
    keys, values = pages
    num_kv_heads, page_size = keys.shape[1:3]
    check_rows("heads", heads, (num_rows, num_heads, size))
    for name, part in (("cosines", rotary[0]), ("sines", rotary[1])):
        check_rows(name, part, (num_rows, size))
    num_queries = num_heads - 2 * num_kv_heads
    queries = torch.empty(num_rows, num_queries, size, dtype=heads.dtype, device=heads.device)
    _kernel[(num_heads, num_rows)](
        heads,
        gains,
        rotary[0],
        rotary[1],
        queries,
        keys,
        values,
        page_table,
        lengths,
        page_table.shape[1],
        eps,
        HAS_NORM=gains is not None,
        QUERIES=num_queries,
        KV_HEADS=num_kv_heads,
        PAGE=page_size,
        HALF=size // 2,
    )
    return queries


@jit
def _kernel(
    heads_ptr: Pointer,
    gains_ptr: Pointer,
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    queries_ptr: Pointer,
    keys_ptr: Pointer,
    values_ptr: Pointer,
    table_ptr: Pointer,
    lengths_ptr: Pointer,
    max_pages: int,
    eps: float,
    HAS_NORM: tl.constexpr,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """One head of one row; a head's halves are two vectors, as the rotary turn pairs them."""
    head, row = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, HALF)
    source = heads_ptr + (row * (QUERIES + 2 * KV_HEADS) + head) * 2 * HALF + lane
    low = tl.load(source).to(tl.float32)
    high = tl.load(source + HALF).to(tl.float32)
    if head < QUERIES + KV_HEADS:
        if HAS_NORM:
            mean = (tl.sum(low * low, axis=0) + tl.sum(high * high, axis=0)) / (2 * HALF)
            scale = tl.rsqrt(mean + eps)
            gains = gains_ptr + head * 2 * HALF + lane
            low = low * scale * tl.load(gains).to(tl.float32)
            high = high * scale * tl.load(gains + HALF).to(tl.float32)
        angle = row * 2 * HALF + lane
        cos_low = tl.load(cos_ptr + angle).to(tl.float32)
        cos_high = tl.load(cos_ptr + angle + HALF).to(tl.float32)
        sin_low = tl.load(sin_ptr + angle).to(tl.float32)
        sin_high = tl.load(sin_ptr + angle + HALF).to(tl.float32)
        turned_low = low * cos_low + high * sin_low
        high = high * cos_high + low * sin_high
        low = turned_low
    if head < QUERIES:
        target = queries_ptr + (row * QUERIES + head) * 2 * HALF + lane
        tl.store(target, low.to(queries_ptr.dtype.element_ty))
        tl.store(target + HALF, high.to(queries_ptr.dtype.element_ty))
    else:
        length = tl.load(lengths_ptr + row)
        page = tl.load(table_ptr + row * max_pages + length // PAGE).to(tl.int64)
        kv_head = (head - QUERIES) % KV_HEADS
        place = ((page * KV_HEADS + kv_head) * PAGE + length % PAGE) * 2 * HALF + lane
        if head < QUERIES + KV_HEADS:
            tl.store(keys_ptr + place, low.to(keys_ptr.dtype.element_ty))
            tl.store(keys_ptr + place + HALF, high.to(keys_ptr.dtype.element_ty))
        else:
            tl.store(values_ptr + place, low.to(values_ptr.dtype.element_ty))
            tl.store(values_ptr + place + HALF, high.to(values_ptr.dtype.element_ty))
