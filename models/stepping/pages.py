"""Key/value caches of many sequences in pages of one pool.

`PagedCache` has the interface of `models.cache.KvCache`; prefills of several sequences write and
read them at once (`models.stepping.paged_spans`), and a step reads the same pages through the
table's rows. What a sequence holds is what
its positions need, rounded up to a page. Page 0 and row 0 belong to nobody: unused entries of the
table and the empty rows of a batch point there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.cache import DecoderCache, KeysValues
from models.config import DecoderConfig
from models.errors import ContextFullError, ResourceError
from models.stepping.paged_spans import PagedSpans

PAGE_SIZE = 64


class PagePool:
    """The pages of one decoder.

    Attributes:
        keys, values: for each layer, [num_pages, num_kv_heads, page_size, head_dim].
        page_bytes: memory of one page in all layers.
        when_short: asked to have so many pages free when they are not; None: nobody is.
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
        self.page_bytes = sum(part[0].nbytes for part in self.keys + self.values)
        self.when_short: Callable[[int], object] | None = None
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
        if count > len(self._free) and self.when_short is not None:
            self.when_short(count)
        if count > len(self._free):
            raise ResourceError(
                f"the cache is full: {count} pages of {self.page_size} tokens are needed,"
                f" {len(self._free)} are free"
            )
        return [self._free.pop() for _ in range(count)]

    def give_back(self, pages: list[int]) -> None:
        """Let pages go."""
        self._free.extend(pages)


class PageTable:
    """Which pages each sequence holds, where steps read it.

    Attributes:
        rows: [num_rows, max_pages] int32 on the device; row 0 is nobody's.
    """

    def __init__(self, pool: PagePool, *, num_rows: int, max_pages: int) -> None:
        device = pool.keys[0].device
        self.pool = pool
        self.rows = torch.zeros(num_rows, max_pages, dtype=torch.int32, device=device)
        self._free = list(range(num_rows - 1, 0, -1))

    def take(self) -> int:
        """A row for a sequence.

        Raises:
            ResourceError: all are taken.
        """
        if not self._free:
            raise ResourceError(f"{len(self.rows) - 1} contexts hold caches, and no more can")
        return self._free.pop()

    def give_back(self, row: int) -> None:
        """Let a row go."""
        self._free.append(row)


class PagedCache:
    """Keys and values of one sequence in a pool: a `SequenceCache`.

    Attributes:
        row: the sequence's row of the table; 0 while it holds no page.
        max_length: positions that may ever be held.
    """

    def __init__(self, table: PageTable) -> None:
        self.length = 0
        self.row = 0
        self._table, self._pool = table, table.pool
        self._pages: list[int] = []
        self.max_length = table.rows.shape[1] * self._pool.page_size

    @property
    def num_visible(self) -> int:
        """All positions are visible to the next one."""
        return self.length

    @property
    def capacity(self) -> int:
        """Positions that fit into the pages held now."""
        return len(self._pages) * self._pool.page_size

    @property
    def num_bytes(self) -> int:
        """Memory of the pages held now."""
        return len(self._pages) * self._pool.page_bytes

    def reserve(self, num_tokens: int) -> None:
        """Take pages until `num_tokens` more fit.

        Raises:
            ResourceError: the sequence would be too long, or no page or no row is free; nothing
                was changed.
        """
        needed = self.length + num_tokens
        if needed > self.max_length:
            raise ContextFullError(
                f"the context is full: {needed} tokens are needed, {self.max_length} fit"
            )
        missing = -(-needed // self._pool.page_size) - len(self._pages)
        if missing <= 0:
            return
        taken = self._pool.take(missing)
        if not self.row:
            try:
                self.row = self._table.take()
            except ResourceError:
                self._pool.give_back(taken)
                raise
        entries = slice(len(self._pages), len(self._pages) + missing)
        new = torch.tensor(taken, dtype=torch.int32)
        self._table.rows[self.row, entries] = new.to(self._table.rows.device)
        self._pages += taken

    def append(self, layer: int, keys: Tensor, values: Tensor) -> KeysValues:
        """Write [T, num_kv_heads, head_dim]; returns copies, [num_kv_heads, length + T, head_dim].

        For prefill: a step for many sequences reads the pages where they lie.
        """
        stop = self.length + keys.shape[0]
        table = self._table.rows[self.row]
        places = torch.arange(self.length, stop, device=keys.device)
        page = table.index_select(0, places // self._pool.page_size).long()
        offset = places % self._pool.page_size
        held = table[: -(-stop // self._pool.page_size)].long()
        whole: list[Tensor] = []
        for pages, new in zip(self._pool.layer(layer), (keys, values), strict=True):
            pages[page, :, offset] = new
            joined = pages.index_select(0, held).transpose(0, 1).flatten(1, 2)  # [Hkv, S, D]
            whole.append(joined[:, :stop])
        return whole[0], whole[1]

    def attend_spans(self, caches: Sequence[DecoderCache], counts: Sequence[int]) -> PagedSpans:
        """As `models.cache.PooledCache` says."""
        paged = [cache for cache in caches if isinstance(cache, PagedCache)]
        assert all(cache._table is self._table for cache in paged)
        assert len(paged) == len(caches)
        rows, lengths = [cache.row for cache in paged], [cache.length for cache in paged]
        return PagedSpans(self._table, rows, lengths, counts)

    def advance(self, num_tokens: int) -> None:
        """Count the positions that every layer, or a step on the device, has appended."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on and let their pages go."""
        if not 0 <= length <= self.length:
            raise ValueError(f"can not cut a cache of {self.length} positions back to {length}")
        self.length = length
        kept = -(-length // self._pool.page_size)
        if kept == len(self._pages):
            return
        self._pool.give_back(self._pages[kept:])
        self._table.rows[self.row, kept : len(self._pages)] = 0
        del self._pages[kept:]
        if not self._pages:
            self._table.give_back(self.row)
            self.row = 0

    def release(self) -> None:
        """Forget all positions and let the pages and the row go."""
        self.truncate(0)
