"""Attention of one new token per sequence over a paged cache, with grouped queries.

The positions of a sequence are split among programs (one sequence alone would keep few of a GPU's
processors busy); each makes a partial softmax, and a second launch joins them. All queries of a
group are one tile, so keys and values are read once. The number of splits is fixed by the table's
width, not by the lengths: the launch is the same at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, check_rows, jit, next_power_of_2, tl

BLOCK_QUERIES = 16  # the least that the matrix unit takes
MAX_SPLITS = 32


def reference(
    queries: Tensor, pages: tuple[Tensor, Tensor], page_table: Tensor, lengths: Tensor
) -> Tensor:
    """Plain PyTorch of `fused`."""
    num_rows, num_queries, size = queries.shape
    num_kv_heads, page_size = pages[0].shape[1:3]
    table = page_table.flatten().long()
    shape = (num_rows, -1, num_kv_heads, page_size, size)
    keys, values = (
        part.index_select(0, table).view(shape).transpose(1, 2).flatten(2, 3)  # [B, Hkv, S, D]
        for part in pages
    )
    places = torch.arange(keys.shape[2], device=queries.device)
    mask = (places < lengths[:, None])[:, None, None]  # [B, 1, 1, S]
    grouped = queries.view(num_rows, num_kv_heads, -1, size)
    # What was never written may be anything, and 0 * NaN is NaN.
    values = values.masked_fill(~mask.transpose(2, 3), 0.0)
    mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    return mixed.reshape(num_rows, num_queries, size)


def fused(
    queries: Tensor, pages: tuple[Tensor, Tensor], page_table: Tensor, lengths: Tensor
) -> Tensor:
    """[B, Hq, D] -> [B, Hq, D].

    Args:
        queries: [B, Hq, D].
        pages: keys and values, [num_pages, Hkv, page_size, D] each; page_size a power of two.
        page_table: [B, max_pages] int32; all entries name a page, also those that are not used.
        lengths: [B] int32, positions to see, at least one.
    """
    num_rows, num_queries, size = queries.shape
    keys, values = pages
    num_kv_heads, page_size = keys.shape[1:3]
    check_rows("queries", queries, (num_rows, num_queries, size))
    group = num_queries // num_kv_heads
    max_pages = page_table.shape[1]
    splits = min(MAX_SPLITS, max_pages)
    partial = torch.empty(
        num_rows, num_queries, splits, size + 2, dtype=torch.float32, device=queries.device
    )
    _partial[(splits, num_kv_heads, num_rows)](
        queries,
        keys,
        values,
        page_table,
        lengths,
        partial,
        max_pages,
        size**-0.5,
        GROUP=group,
        BLOCK=max(BLOCK_QUERIES, next_power_of_2(group)),
        SPLITS=splits,
        PAGE=page_size,
        SIZE=size,
    )
    mixed = torch.empty_like(queries)
    _join[(num_queries, num_rows)](
        partial, mixed, QUERIES=num_queries, SPLITS=splits, BLOCK=next_power_of_2(splits), SIZE=size
    )
    return mixed


@jit
def _partial(
    queries_ptr: Pointer,
    keys_ptr: Pointer,
    values_ptr: Pointer,
    table_ptr: Pointer,
    lengths_ptr: Pointer,
    partial_ptr: Pointer,
    max_pages: int,
    scale: float,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    PAGE: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    """One group of queries over every SPLITS-th page: mixed values, greatest score, sum."""
    split, kv_head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_kv_heads = tl.num_programs(1)
    lane, member, place = tl.arange(0, SIZE), tl.arange(0, BLOCK), tl.arange(0, PAGE)
    head = row * num_kv_heads * GROUP + kv_head * GROUP + member
    is_member = member < GROUP
    queries = tl.load(
        queries_ptr + head[:, None] * SIZE + lane[None, :], mask=is_member[:, None], other=0.0
    )
    length = tl.load(lengths_ptr + row)
    best = tl.full((BLOCK,), -1e30, dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    mixed = tl.zeros((BLOCK, SIZE), dtype=tl.float32)
    for index in range(split, (length + PAGE - 1) // PAGE, SPLITS):
        page = tl.load(table_ptr + row * max_pages + index).to(tl.int64)
        base = (page * num_kv_heads + kv_head) * PAGE * SIZE
        where = base + place[:, None] * SIZE + lane[None, :]
        is_seen = index * PAGE + place < length
        keys = tl.load(keys_ptr + where, mask=is_seen[:, None], other=0.0)
        values = tl.load(values_ptr + where, mask=is_seen[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(is_seen[None, :], scores, -1e30)
        now = tl.maximum(best, tl.max(scores, axis=1))
        fade = tl.exp(best - now)
        shares = tl.exp(scores - now[:, None])
        total = total * fade + tl.sum(shares, axis=1)
        mixed = mixed * fade[:, None]
        mixed += tl.dot(shares.to(values.dtype), values, input_precision="ieee")
        best = now
    target = partial_ptr + (head * SPLITS + split) * (SIZE + 2)
    tl.store(target[:, None] + lane[None, :], mixed, mask=is_member[:, None])
    tl.store(target + SIZE, best, mask=is_member)
    tl.store(target + SIZE + 1, total, mask=is_member)


@jit
def _join(
    partial_ptr: Pointer,
    mixed_ptr: Pointer,
    QUERIES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    """One query head: its splits, each weighted by its share of the whole softmax."""
    head = tl.program_id(1) * QUERIES + tl.program_id(0)
    split, lane = tl.arange(0, BLOCK), tl.arange(0, SIZE)
    has = split < SPLITS
    source = partial_ptr + (head * SPLITS + split) * (SIZE + 2)
    best = tl.load(source + SIZE, mask=has, other=-1e30)
    total = tl.load(source + SIZE + 1, mask=has, other=0.0)
    mixed = tl.load(source[:, None] + lane[None, :], mask=has[:, None], other=0.0)
    weight = tl.exp(best - tl.max(best, axis=0))
    whole = tl.sum(mixed * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    tl.store(mixed_ptr + head * SIZE + lane, whole.to(mixed_ptr.dtype.element_ty))
