"""The decoder over a batch of sequences, with gradients: what training runs.

`models.decoder` serves one sequence with a cache; this uses the same modules' weights and computes
the same (tests hold it to that). Shorter sequences are filled up at their end, where nothing looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.decoder import Attention, Decoder, DecoderLayer, Deepstack, Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutput:
    """[B, n, H] after the final norm, and of the layer asked for."""

    hidden: Tensor
    captured: Tensor | None


def run_batch(
    decoder: Decoder,
    hidden: Tensor,
    positions: Tensor | None = None,
    *,
    num_shared: int = 0,
    deepstack: Deepstack | None = None,
    capture_layer: int | None = None,
) -> BatchOutput:
    """Sequences [B, n, H] through all layers.

    Args:
        positions: [3, B, n]; None: 0 .. n - 1.
        num_shared: the first so many tokens, with their positions, are the same in all sequences:
            they are computed once.
        deepstack: indexes into B * n tokens, none of them shared.
    """
    batch, length, _ = hidden.shape
    if positions is None:
        positions = torch.arange(length, dtype=torch.float32).expand(3, batch, length)
    shape = _Shape(batch=batch, length=length, num_shared=num_shared)
    rotary = decoder.rotary(shape.flat(positions.permute(1, 2, 0)).t(), torch.float32)
    mask = _mask(length, decoder.config.sliding_window)
    flat = shape.flat(hidden)
    captured = None
    for index, layer in enumerate(cast(Iterable[DecoderLayer], decoder.layers)):
        flat = _layer(layer, flat, rotary, mask, shape)
        if deepstack is not None and index < len(deepstack.features):
            rows = shape.rows(deepstack.index)
            flat = flat.index_add(0, rows, deepstack.features[index].to(flat.dtype))
        if index + 1 == capture_layer:
            captured = shape.whole(flat)
    return BatchOutput(hidden=shape.whole(decoder.norm(flat)), captured=captured)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """How a batch lies in one row of tokens: the shared ones, then what is each sequence's own."""

    batch: int
    length: int
    num_shared: int

    def flat(self, whole: Tensor) -> Tensor:
        """[B, n, ...] -> [m, ...]."""
        own = whole[:, self.num_shared :].flatten(0, 1)
        return torch.cat([whole[0, : self.num_shared], own]) if self.num_shared else own

    def whole(self, flat: Tensor) -> Tensor:
        """[m, ...] -> [B, n, ...]."""
        shared, own = self.parts(flat)
        return torch.cat([shared.expand(self.batch, *shared.shape[1:]), own], dim=1)

    def parts(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """[m, ...] -> the shared tokens [1, s, ...] and the others [B, n - s, ...]."""
        own = flat[self.num_shared :].reshape(self.batch, -1, *flat.shape[1:])
        return flat[None, : self.num_shared], own

    def rows(self, index: Tensor) -> Tensor:
        """Indexes into B * n tokens -> into the m tokens."""
        sequence, place = index // self.length, index % self.length
        own = self.length - self.num_shared
        return self.num_shared + sequence * own + place - self.num_shared


def _mask(length: int, window: int | None) -> Tensor:
    """[n, n] bool, True where a token may look."""
    order = torch.arange(length)
    mask = order[:, None] >= order
    return mask if window is None else mask & (order[:, None] < order + window)


def let_norms_learn(model: nn.Module) -> None:
    """Attention reads both norms' weights from one tensor: join them anew, with gradients."""
    for module in model.modules():
        if isinstance(module, Attention) and module.has_qk_norm:
            queries = module.q_norm.weight.expand(module.num_heads, -1)
            keys = module.k_norm.weight.expand(module.num_kv_heads, -1)
            module.qk_weight = torch.cat((queries, keys))


def build_constants(model: nn.Module) -> None:
    """Make what is computed and not learnt, on the CPU."""
    for module in model.modules():
        build = getattr(module, "build_constants", None)
        if build is not None:
            build(torch.device("cpu"))


def _layer(
    layer: DecoderLayer, hidden: Tensor, rotary: Rotary, mask: Tensor, shape: _Shape
) -> Tensor:
    attended = _attended(layer.self_attn, layer.input_layernorm(hidden), rotary, mask, shape)
    if layer.has_layer_scale:
        attended = layer.self_attn_layer_scale(attended)
    hidden = hidden + attended
    fed: Tensor = layer.mlp(layer.post_attention_layernorm(hidden))
    if layer.has_layer_scale:
        fed = layer.mlp_layer_scale(fed)
    return hidden + fed


def _attended(
    attention: Attention, hidden: Tensor, rotary: Rotary, mask: Tensor, shape: _Shape
) -> Tensor:
    num_heads, num_kv_heads = attention.num_heads, attention.num_kv_heads
    heads = attention.qkv_proj(hidden).view(len(hidden), -1, attention.head_dim)
    num_turned = num_heads + num_kv_heads
    turned, values = heads[:, :num_turned], heads[:, num_turned:]
    if attention.qk_weight is not None:
        normed = F.rms_norm(turned.float(), (attention.head_dim,), None, attention.eps)
        turned = normed * attention.qk_weight
    turned = rotary.rotate(turned)
    queries, keys = turned[:, :num_heads], turned[:, num_heads:]
    keys, values = shape.whole(keys), shape.whole(values)
    first, own = shape.parts(queries)
    shared = shape.num_shared
    mixed = [_mixed(own, keys, values, mask[shared:])]
    if shared:
        seen = slice(0, shared)
        mixed.insert(0, _mixed(first, keys[:1, seen], values[:1, seen], mask[seen, seen]))
    out: Tensor = attention.o_proj(torch.cat([rows.flatten(0, 1) for rows in mixed]))
    return out


def _mixed(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """[B, q, Hq, D] over [B, k, Hkv, D] -> [B, q, Hq * D]."""
    batch, length, _, size = queries.shape
    queries = queries.reshape(batch, length, keys.shape[2], -1, size)
    queries = queries.permute(0, 2, 3, 1, 4)  # [B, Hkv, G, q, D]
    keys = keys.permute(0, 2, 3, 1)[:, :, None]  # [B, Hkv, 1, D, k]
    # Plain products: on a CPU the fused kernel's gradient is several times slower. What is as large
    # as the scores costs more than the products: it stays in their dtype, and is scaled before.
    scores = (queries * size**-0.5) @ keys  # [B, Hkv, G, q, k]
    with torch.autocast("cpu", enabled=False):
        shares = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    mixed: Tensor = shares @ values.transpose(1, 2)[:, :, None]  # [B, Hkv, G, q, D]
    return mixed.permute(0, 3, 1, 2, 4).flatten(2)
