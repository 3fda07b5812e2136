"""Attention of several sequences' new tokens over pages of one pool, all of them at once.

What `models.attention.Spans` does one sequence after the other: where each launch has its price,
eight prefills together would cost eight times the launches of one. Sequences are padded to the
longest; what does not depend on the layer is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.attention import Array

if TYPE_CHECKING:
    from models.stepping.pages import PageTable


class PagedSpans:
    """An `Attend`: `counts[i]` tokens, one sequence after the other, of the sequence in `rows[i]`
    of the table, behind its `lengths[i]` positions. Room for them was made before.
    """

    def __init__(
        self,
        table: PageTable,
        rows: Sequence[int],
        lengths: Sequence[int],
        counts: Sequence[int],
    ) -> None:
        self._pool = table.pool
        device, size = table.rows.device, self._pool.page_size
        longest = max(counts)
        num_pages = -(-max(map(sum, zip(lengths, counts, strict=True))) // size)
        starts = [0, *accumulate(counts)][:-1]
        number = np.repeat(np.arange(len(counts)), counts)  # of each token's sequence
        within = np.arange(sum(counts)) - np.array(starts)[number]
        places = np.array(lengths)[number] + within
        steps = np.arange(longest)
        padded = np.array(starts)[:, None] + np.minimum(steps, np.array(counts)[:, None] - 1)
        # One copy to the device for all that the host knows.
        joined = torch.from_numpy(
            np.concatenate(
                [number, within, places, padded.ravel(), np.array(lengths), np.array(rows)]
            )
        ).to(device)
        sizes = [len(number)] * 3 + [padded.size, len(rows), len(rows)]
        number_of, within_of, place, taken, past, row = torch.split(joined, sizes)
        held = table.rows.index_select(0, row)[:, :num_pages].long()  # [B, P]
        self._page = held[number_of, place // size]
        self._offset = place % size
        self._held, self._shape = held.flatten(), (len(rows), num_pages)
        self._taken, self._longest = taken, longest
        self._given = number_of * longest + within_of
        keys = torch.arange(num_pages * size, device=device)
        self._sees = keys <= (past[:, None] + torch.arange(longest, device=device))[..., None]
        self._bias: Tensor | None = None

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[N, Hq, D] and twice [N, Hkv, D] -> [N, Hq * D]."""
        num_sequences, num_kv_heads = self._shape[0], keys.shape[1]
        past = []
        for pages, new in zip(self._pool.layer(layer), (keys, values), strict=True):
            pages[self._page, :, self._offset] = new
            held = torch.unflatten(pages.index_select(0, self._held), 0, self._shape)
            past.append(held.transpose(1, 2).flatten(2, 3))  # [B, Hkv, S, D]
        past_keys, past_values = past
        groups = queries.shape[1] // num_kv_heads
        if self._bias is None:  # [B, 1, groups * T, S], once for all layers
            bias = torch.zeros_like(self._sees, dtype=queries.dtype)
            bias.masked_fill_(self._sees.logical_not(), float("-inf"))
            self._bias = bias.repeat(1, groups, 1)[:, None]
        padded = queries.index_select(0, self._taken)  # [B * T, Hq, D]
        padded = padded.view(num_sequences, self._longest, num_kv_heads, groups, -1)
        padded = padded.permute(0, 2, 3, 1, 4).flatten(2, 3)  # heads of a group as positions
        mixed = F.scaled_dot_product_attention(padded, past_keys, past_values, attn_mask=self._bias)
        mixed = torch.unflatten(mixed, 2, (groups, self._longest)).permute(0, 3, 1, 2, 4)
        return mixed.flatten(2).flatten(0, 1).index_select(0, self._given)

    def arrays(self, layer: int, queries: Array, keys: Array, values: Array) -> Array:
        """The same of arrays, on a CPU."""
        mixed: Array = self(layer, *map(torch.from_numpy, (queries, keys, values))).numpy()
        return mixed
