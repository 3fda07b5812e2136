"""Key/value caches of many sequences in pages of one pool.

`PagedCache` has the interface of `models.cache.KvCache`, so prefill writes a sequence as ever; a
step for many sequences reads the same pages through the sequences' tables. Page 0 belongs to
nobody: unused table entries and the empty rows of a batch point there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.cache import KeysValues
from models.config import DecoderConfig
from models.errors import ContextFullError, ResourceError

PAGE_SIZE = 64


class PagePool:
    """The pages of one decoder.

    Attributes:
        keys, values: for each layer, [num_pages, num_kv_heads, page_size, head_dim].
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        num_pages: int,
        device: torch.device,
        dtype: torch.dtype,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self.page_size = page_size
        shape = (num_pages, config.num_kv_heads, page_size, config.head_dim)
        layers = range(config.num_layers)
        # Zeros, not whatever was there: masked positions are multiplied by 0, and 0 * NaN is NaN.
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self._free = list(range(num_pages - 1, 0, -1))

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer."""
        return self.keys[index], self.values[index]

    def take(self, count: int) -> list[int]:
        """Hold `count` more pages.

        Raises:
            ResourceError: so many are not free; none was taken.
        """
        if count > len(self._free):
            raise ResourceError(
                f"the cache is full: {count} pages of {self.page_size} tokens are needed,"
                f" {len(self._free)} are free"
            )
        return [self._free.pop() for _ in range(count)]

    def give_back(self, pages: list[int]) -> None:
        """Let pages go."""
        self._free.extend(pages)


class PagedCache:
    """Keys and values of one sequence in a pool: a `DecoderCache` that can be cut back.

    Args:
        table: [max_pages] int32 on the device, the sequence's page numbers; kept up to date here
            and read by steps.
    """

    def __init__(self, pool: PagePool, table: Tensor) -> None:
        self.length = 0
        self._pool = pool
        self._table = table
        self._pages: list[int] = []
        self._table.zero_()

    @property
    def num_visible(self) -> int:
        """All positions are visible to the next one."""
        return self.length

    @property
    def max_length(self) -> int:
        """Positions that may ever be held."""
        return len(self._table) * self._pool.page_size

    @property
    def capacity(self) -> int:
        """Positions that fit into the pages held now."""
        return len(self._pages) * self._pool.page_size

    def reserve(self, num_tokens: int) -> None:
        """Take pages until `num_tokens` more fit.

        Raises:
            ResourceError: the sequence would be too long, or no page is free; nothing was changed.
        """
        needed = self.length + num_tokens
        if needed > self.max_length:
            raise ContextFullError(
                f"the context is full: {needed} tokens are needed, {self.max_length} fit"
            )
        missing = -(-needed // self._pool.page_size) - len(self._pages)
        if missing > 0:
            first = len(self._pages)
            self._pages += self._pool.take(missing)
            new = torch.tensor(self._pages[first:], dtype=torch.int32)
            self._table[first : len(self._pages)] = new.to(self._table.device)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> KeysValues:
        """Write [T, num_kv_heads, head_dim]; returns copies, [num_kv_heads, length + T, head_dim].

        For prefill: a step for many sequences reads the pages where they lie.
        """
        stop = self.length + keys.shape[0]
        places = torch.arange(self.length, stop, device=keys.device)
        page = self._table.index_select(0, places // self._pool.page_size).long()
        offset = places % self._pool.page_size
        held = self._table[: -(-stop // self._pool.page_size)].long()
        whole: list[Tensor] = []
        for pages, new in zip(self._pool.layer(layer), (keys, values), strict=True):
            pages[page, :, offset] = new
            joined = pages.index_select(0, held).transpose(0, 1).flatten(1, 2)  # [Hkv, S, D]
            whole.append(joined[:, :stop])
        return whole[0], whole[1]

    def advance(self, num_tokens: int) -> None:
        """Count the positions that every layer, or a step on the device, has appended."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on and let their pages go."""
        if not 0 <= length <= self.length:
            raise ValueError(f"can not cut a cache of {self.length} positions back to {length}")
        self.length = length
        kept = -(-length // self._pool.page_size)
        self._pool.give_back(self._pages[kept:])
        self._table[kept : len(self._pages)] = 0
        del self._pages[kept:]
