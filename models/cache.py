"""Key/value caches of one sequence, written by index.

`KvCache` keeps every position and can be cut back (rollback), and its memory follows its length;
`WindowKvCache` keeps what sliding-window attention can still see, and can be cloned (the state of a
vocoder stream). Both hold one tensor per layer: a step that reads one stacked tensor is several
times slower on a CPU.

Use by `models.decoder`: `reserve` once per forward, `append` once per layer, `advance` at the end.
A forward that fails before `advance` leaves the cache as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from models.cache_memory import cache_memory
from models.config import DecoderConfig
from models.errors import ContextFullError

if TYPE_CHECKING:
    from models.attention import Attend

KeysValues = tuple[Tensor, Tensor]


class DecoderCache(Protocol):
    """What the decoder needs of a cache. Layout of a layer: [num_kv_heads, positions, head_dim]."""

    @property
    def length(self) -> int:
        """Positions appended so far."""

    @property
    def num_visible(self) -> int:
        """Earlier positions that the next `append` returns before the new ones."""

    def reserve(self, num_tokens: int) -> None:
        """Make room for `num_tokens` more positions."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> KeysValues:
        """Write [T, num_kv_heads, head_dim] behind the visible positions; returns views of all."""

    def advance(self, num_tokens: int) -> None:
        """Count the positions that every layer has appended."""


@runtime_checkable
class PooledCache(Protocol):
    """A cache whose memory is one with others': new tokens of several are attended at once."""

    def attend_spans(self, caches: Sequence[DecoderCache], counts: Sequence[int]) -> Attend:
        """For `counts[i]` tokens of `caches[i]`, which are of one pool, this one among them."""


class SequenceCache(DecoderCache, Protocol):
    """A cache of all positions of one sequence, which can be cut back."""

    max_length: int  # positions that may ever be held

    @property
    def num_bytes(self) -> int:
        """Memory held now."""

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""

    def release(self) -> None:
        """Forget all positions and give the memory back; `reserve` takes it again."""


class KvCache:
    """Keys and values of all positions of one sequence; holds memory for what is in it.

    Args:
        config: the decoder whose cache this is.
        max_length: positions that may ever be held; None: the decoder's `max_positions`.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        max_length: int | None = None,
    ) -> None:
        self.max_length = config.max_positions if max_length is None else max_length
        self.length = 0
        self._num_reserved = 0
        self._memory = cache_memory(config, self.max_length, device, dtype)

    @property
    def num_visible(self) -> int:
        """All positions are visible to the next one."""
        return self.length

    @property
    def num_bytes(self) -> int:
        """Memory held now."""
        return self._memory.num_bytes

    def reserve(self, num_tokens: int) -> None:
        """Make room for `num_tokens` more.

        Raises:
            ResourceError: the sequence would be longer than `max_length`; nothing was changed.
        """
        needed = self.length + num_tokens
        if needed > self.max_length:
            raise ContextFullError(
                f"the context is full: {needed} tokens are needed, {self.max_length} fit"
            )
        if needed > self._num_reserved:
            self._resize(needed)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> KeysValues:
        """Write [T, num_kv_heads, head_dim]; returns [num_kv_heads, length + T, head_dim] views."""
        start = self.length
        stop = start + keys.shape[0]
        all_keys = self._memory.keys[layer][:, :stop]
        all_values = self._memory.values[layer][:, :stop]
        all_keys[:, start:] = keys.transpose(0, 1)
        all_values[:, start:] = values.transpose(0, 1)
        return all_keys, all_values

    def advance(self, num_tokens: int) -> None:
        """Count the positions that every layer has appended."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on and give their memory back."""
        if not 0 <= length <= self.length:
            raise ValueError(f"can not cut a cache of {self.length} positions back to {length}")
        self.length = length
        self._resize(length)

    def release(self) -> None:
        """Forget all positions and give the memory back; `reserve` takes it again."""
        self.truncate(0)

    def _resize(self, num_positions: int) -> None:
        self._memory.resize(num_positions, kept=self.length)
        self._num_reserved = num_positions


class WindowKvCache:
    """Keys and values of the last `sliding_window - 1` positions of one sequence.

    The kept positions wander through a buffer and are moved to its start when it is full, so that
    most steps copy nothing but the new position.
    """

    def __init__(self, config: DecoderConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        if config.sliding_window is None:
            raise ValueError("a decoder without a sliding window needs a KvCache")
        self.length = 0
        self._num_kept = config.sliding_window - 1
        self._capacity = 2 * config.sliding_window
        self._end = 0
        self._keys = _allocate(config, self._capacity, device, dtype)
        self._values = _allocate(config, self._capacity, device, dtype)

    @property
    def num_visible(self) -> int:
        """Kept positions, at most `sliding_window - 1`."""
        return min(self._num_kept, self.length)

    @property
    def num_bytes(self) -> int:
        """Bytes allocated now."""
        return _num_bytes(self._keys) + _num_bytes(self._values)

    def reserve(self, num_tokens: int) -> None:
        """Move the kept positions to the start where `num_tokens` more do not fit behind them."""
        if self._end + num_tokens <= self._capacity:
            return
        visible = self.num_visible
        self._capacity = max(self._capacity, visible + num_tokens)
        self._keys = [self._moved(old, visible) for old in self._keys]
        self._values = [self._moved(old, visible) for old in self._values]
        self._end = visible

    def append(self, layer: int, keys: Tensor, values: Tensor) -> KeysValues:
        """As `KvCache.append`; the views are [num_kv_heads, num_visible + T, head_dim]."""
        visible = self.num_visible
        window = slice(self._end - visible, self._end + keys.shape[0])
        seen_keys = self._keys[layer][:, window]
        seen_values = self._values[layer][:, window]
        seen_keys[:, visible:] = keys.transpose(0, 1)
        seen_values[:, visible:] = values.transpose(0, 1)
        return seen_keys, seen_values

    def advance(self, num_tokens: int) -> None:
        """Count the positions that every layer has appended."""
        self.length += num_tokens
        self._end += num_tokens

    def clone(self) -> WindowKvCache:
        """An independent copy of the state."""
        copy = object.__new__(WindowKvCache)
        copy.length = self.length
        copy._num_kept = self._num_kept
        copy._capacity = self._capacity
        copy._end = self._end
        copy._keys = [keys.clone() for keys in self._keys]
        copy._values = [values.clone() for values in self._values]
        return copy

    def _moved(self, old: Tensor, visible: int) -> Tensor:
        kept = old[:, self._end - visible : self._end]
        if old.shape[1] < self._capacity:
            new = old.new_empty(old.shape[0], self._capacity, old.shape[2])
        else:
            new, kept = old, kept.clone()  # source and target may overlap
        new[:, :visible] = kept
        return new


def _allocate(
    config: DecoderConfig, capacity: int, device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    shape = (config.num_kv_heads, capacity, config.head_dim)
    return [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]


def _num_bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
