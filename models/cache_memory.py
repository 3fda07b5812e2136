"""Memory for the keys and values of one sequence, in all layers, that grows and shrinks with it.

On a CPU the addresses of the longest sequence are set aside at once, and the operating system gives
memory behind them, a page of its own at a time, as positions are written. So a layer's tensors stay
where they are and contiguous, growth copies nothing, and what is cut off is given back. Elsewhere a
layer is allocated anew whenever it needs `CHUNK` positions more or less, one layer at a time.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Protocol

import torch
from torch import Tensor

from models.config import DecoderConfig
from models.errors import ResourceError

CHUNK = 512  # positions: 50 MB of the published thinker; to move 8192 takes an H200 0.3 ms
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's; Python names it from 3.13 on


class CacheMemory(Protocol):
    """See the module's docstring. `keys` and `values`: of each layer, [num_kv_heads, ..., D]."""

    keys: list[Tensor]
    values: list[Tensor]

    @property
    def num_bytes(self) -> int:
        """Memory held now."""

    def resize(self, num_positions: int, *, kept: int) -> None:
        """Room for so many positions and hardly more; the first `kept` of them stay."""


def cache_memory(
    config: DecoderConfig, max_length: int, device: torch.device, dtype: torch.dtype
) -> CacheMemory:
    """Empty memory for at most `max_length` positions, as suits the device."""
    if device.type == "cpu":
        return HostMemory(config, max_length, dtype)
    return DeviceMemory(config, max_length, device, dtype)


class HostMemory:
    """A sequence's memory on a CPU; whole pages of the operating system are held."""

    def __init__(self, config: DecoderConfig, max_length: int, dtype: torch.dtype) -> None:
        layers, heads, size = config.num_layers, config.num_kv_heads, config.head_dim
        self._position_bytes = size * dtype.itemsize
        self._part_bytes = _whole(max(1, max_length) * self._position_bytes, mmap.PAGESIZE)
        self._num_parts = 2 * layers * heads
        self._held = 0  # bytes of each part, from its start
        try:
            self._map = mmap.mmap(
                -1,
                self._num_parts * self._part_bytes,
                flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE,
            )
        except OSError as error:
            raise ResourceError(f"no addresses for a cache of {max_length} tokens") from error
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        storage = torch.frombuffer(self._map, dtype=torch.uint8).untyped_storage()
        part = self._part_bytes // dtype.itemsize
        # Tensors of their own, not views of one: who trains may write to one and read another.
        self.keys, self.values = (
            [
                torch.empty(0, dtype=dtype).set_(
                    storage, layer * heads * part, (heads, max_length, size), (part, size, 1)
                )
                for layer in range(first, first + layers)
            ]
            for first in (0, layers)
        )

    @property
    def num_bytes(self) -> int:
        """Memory held now."""
        return self._num_parts * self._held

    def resize(self, num_positions: int, *, kept: int) -> None:
        """As `CacheMemory.resize`; nothing is moved."""
        held = _whole(num_positions * self._position_bytes, mmap.PAGESIZE)
        if held < self._held:
            for start in range(held, held + len(self._map), self._part_bytes):
                self._map.madvise(mmap.MADV_DONTNEED, start, self._held - held)
        self._held = held


class DeviceMemory:
    """A sequence's memory elsewhere; whole chunks are held."""

    def __init__(
        self, config: DecoderConfig, max_length: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._max_length = max_length
        empty = torch.empty(config.num_kv_heads, 0, config.head_dim, device=device, dtype=dtype)
        self.keys = [empty] * config.num_layers
        self.values = [empty] * config.num_layers

    @property
    def num_bytes(self) -> int:
        """Memory held now."""
        return sum(part.nbytes for part in self.keys + self.values)

    def resize(self, num_positions: int, *, kept: int) -> None:
        """As `CacheMemory.resize`; copies what stays."""
        capacity = min(_whole(num_positions, CHUNK), self._max_length)
        if capacity == self.keys[0].shape[1]:
            return
        for parts in (self.keys, self.values):
            for layer, old in enumerate(parts):
                parts[layer] = old.new_empty(old.shape[0], capacity, old.shape[2])
                parts[layer][:, :kept] = old[:, :kept]


def _whole(count: int, unit: int) -> int:
    """`count` rounded up to whole units."""
    return -(-count // unit) * unit
