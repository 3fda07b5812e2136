"""Attention of a decoder's new positions over what came before them, and where that is kept.

A decoder's layers do not care whether their rows are the tokens of one sequence or the next token
of each of several: only attention tells them apart, so it is handed to them. Four ways: `Sequence`
(tokens of one sequence), `Spans` (tokens of several), `Rows` (the next token of each of several
sequences, each with its own cache), `Frames` (scratch sequences of equal length that begin and end
together).
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.cache import DecoderCache
from models.config import DecoderConfig
from models.threads import side_by_side

Array = NDArray[np.float32]
MIN_SHARED_PRODUCTS = 10_000_000  # 0.2 ms of one core: many times what another's help costs


class Attend(Protocol):
    """Keeps a layer's new keys and values, and mixes the values that each query sees."""

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[N, Hq, D] and twice [N, Hkv, D] -> [N, Hq * D]."""

    def arrays(self, layer: int, queries: Array, keys: Array, values: Array) -> Array:
        """The same of arrays, on a CPU."""


class _ByTensors:
    """Takes arrays as the tensors that share their memory."""

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        raise NotImplementedError

    def arrays(self, layer: int, queries: Array, keys: Array, values: Array) -> Array:
        mixed: Array = self(layer, *map(torch.from_numpy, (queries, keys, values))).numpy()
        return mixed


class Sequence(_ByTensors):
    """T tokens of one sequence.

    Args:
        mask: [T, P + T] bool, what each token sees. None: all where T is 1, else plainly causal
            without earlier positions.
    """

    def __init__(self, cache: DecoderCache, mask: Tensor | None = None) -> None:
        self._cache, self._mask = cache, mask
        self._bias: Tensor | None = None

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The query heads of a group are as good as positions, so keys are read once for all of
        them; a mask then counts for each. Plainly causal attention is the library's own affair.
        """
        all_keys, all_values = self._cache.append(layer, keys, values)  # [Hkv, P + T, D]
        if len(queries) == 1 and self._mask is None:
            return _attend_one(queries, all_keys, all_values)
        if self._mask is None:
            mixed = F.scaled_dot_product_attention(
                queries.transpose(0, 1)[None],  # [1, Hq, T, D]
                all_keys[None],
                all_values[None],
                is_causal=True,
                enable_gqa=True,
            )
            return mixed[0].transpose(0, 1).flatten(1)  # [T, Hq * D]
        num_tokens, num_heads, head_dim = queries.shape
        num_kv_heads = len(all_keys)
        num_groups = num_heads // num_kv_heads
        grouped = queries.view(num_tokens, num_kv_heads, num_groups, head_dim)
        grouped = grouped.permute(1, 2, 0, 3).reshape(1, num_kv_heads, -1, head_dim)
        if self._bias is None:  # once for all layers, as the library adds it
            bias = torch.zeros_like(self._mask, dtype=queries.dtype)
            bias.masked_fill_(self._mask.logical_not(), float("-inf"))
            self._bias = bias.repeat(num_groups, 1)  # [groups * T, P + T]
        mixed = _attend_biased(grouped, all_keys[None], all_values[None], self._bias)
        mixed = mixed.view(num_kv_heads, num_groups, num_tokens, head_dim)
        return mixed.permute(2, 0, 1, 3).reshape(num_tokens, -1)


class Spans(_ByTensors):
    """Tokens of several sequences, one after the other: `counts[i]` of `sequences[i]`."""

    def __init__(self, sequences: Many[Sequence], counts: Many[int]) -> None:
        self._sequences, self._counts = sequences, list(counts)

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        spans = zip(
            self._sequences,
            *(torch.split(heads, self._counts) for heads in (queries, keys, values)),
            strict=True,
        )
        return torch.cat([attend(layer, *heads) for attend, *heads in spans])


class Rows(_ByTensors):
    """The next token of each of several sequences: row i belongs to `caches[i]`.

    Caches are read where they lie, one after the other: joining them would copy all of them in
    every layer.
    """

    def __init__(self, caches: Many[DecoderCache]) -> None:
        self._caches = caches

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        rows = zip(
            self._caches,
            *(heads.chunk(len(keys)) for heads in (queries, keys, values)),
            strict=True,
        )
        return torch.cat(
            [
                _attend_one(query, *cache.append(layer, key, value))
                for cache, query, key, value in rows
            ]
        )


class Frames(_ByTensors):
    """`num_rows` scratch sequences of at most `num_positions`, fed T positions of each at a time.

    The rows of a call are [row 0's T positions, row 1's, ...]; T is more than 1 at the start only.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        num_rows: int,
        num_positions: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (num_rows, config.num_kv_heads, num_positions, config.head_dim)
        layers = range(config.num_layers)
        self._keys = [torch.empty(shape, device=device, dtype=dtype) for _ in layers]
        self._values = [torch.empty(shape, device=device, dtype=dtype) for _ in layers]
        self._kept: list[tuple[Array, Array]] = []  # the same memory, as `arrays` takes it
        if device.type == "cpu" and dtype == torch.float32:
            both = zip(self._keys, self._values, strict=True)
            self._kept = [(keys.numpy(), values.numpy()) for keys, values in both]
        self._num_rows, self._head_dim = num_rows, config.head_dim
        self._num_kv_heads = config.num_kv_heads
        self._num_groups = config.num_heads // config.num_kv_heads
        self.length = 0

    def restart(self) -> None:
        """Begin other sequences."""
        self.length = 0

    def advance(self, num_positions: int) -> None:
        """Count the positions of each row that every layer has kept."""
        self.length += num_positions

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if len(queries) == self._num_rows:
            place = self.length
            self._keys[layer][:, :, place] = keys
            self._values[layer][:, :, place] = values
            queries = queries.view(self._num_rows, self._num_kv_heads, -1, self._head_dim)
            mixed = F.scaled_dot_product_attention(
                queries,
                self._keys[layer][:, :, : place + 1],
                self._values[layer][:, :, : place + 1],
            )
            return mixed.reshape(self._num_rows, -1)
        assert self.length == 0, "several positions at once come at the start only"
        queries, keys, values = (
            torch.unflatten(heads, 0, (self._num_rows, -1)).transpose(1, 2)
            for heads in (queries, keys, values)
        )  # [B, heads, T, D]
        num_positions = keys.shape[2]
        self._keys[layer][:, :, :num_positions] = keys
        self._values[layer][:, :, :num_positions] = values
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=True
        )
        return mixed.transpose(1, 2).reshape(self._num_rows * num_positions, -1)

    def arrays(self, layer: int, queries: Array, keys: Array, values: Array) -> Array:
        if len(queries) != self._num_rows:
            return super().arrays(layer, queries, keys, values)
        all_keys, all_values = self._kept[layer]
        stop = self.length + 1
        all_keys[:, :, self.length], all_values[:, :, self.length] = keys, values
        queries = queries.reshape(self._num_rows, self._num_kv_heads, -1, self._head_dim)
        scores = queries @ all_keys[:, :, :stop].swapaxes(-1, -2)
        scores *= self._head_dim**-0.5
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.matmul(scores, all_values[:, :, :stop])
        rows: Array = mixed.reshape(self._num_rows, -1)
        return rows


def _attend_biased(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """[1, Hkv, N, D] over [1, Hkv, S, D]; a long past is read by two cores, each for half of N."""
    half = len(bias) // 2
    num_products = bias.numel() * keys.shape[1] * keys.shape[3]
    is_short = keys.is_cuda or num_products < MIN_SHARED_PRODUCTS
    if is_short or not torch.is_inference_mode_enabled():
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)

    def mix(rows: slice) -> Tensor:
        return F.scaled_dot_product_attention(
            queries[:, :, rows], keys, values, attn_mask=bias[rows]
        )

    return torch.cat(
        side_by_side(partial(mix, slice(half)), partial(mix, slice(half, None))), dim=2
    )


def _attend_one(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[1, Hq, D] over [Hkv, S, D] -> [1, Hq * D]."""
    grouped = queries.view(1, len(keys), -1, queries.shape[-1])
    return F.scaled_dot_product_attention(grouped, keys[None], values[None]).view(1, -1)
