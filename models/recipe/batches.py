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
    deepstack: Deepstack | None = None,
    capture_layer: int | None = None,
) -> BatchOutput:
    """Sequences [B, n, H] through all layers.

    Args:
        positions: [3, B, n]; None: 0 .. n - 1.
        deepstack: indexes into B * n tokens.
    """
    batch, length, _ = hidden.shape
    if positions is None:
        positions = torch.arange(length, dtype=torch.float32).expand(3, batch, length)
    rotary = decoder.rotary(positions.reshape(3, -1), torch.float32)
    rotary = Rotary(rotary.cos.view(batch, length, 1, -1), rotary.sin.view(batch, length, 1, -1))
    order = torch.arange(length)
    mask = order[:, None] >= order
    if decoder.config.sliding_window is not None:
        mask = mask & (order[:, None] < order + decoder.config.sliding_window)
    captured = None
    for index, layer in enumerate(cast(Iterable[DecoderLayer], decoder.layers)):
        hidden = _layer(layer, hidden, rotary, mask)
        if deepstack is not None and index < len(deepstack.features):
            flat = hidden.flatten(0, 1)
            flat = flat.index_add(0, deepstack.index, deepstack.features[index].to(flat.dtype))
            hidden = flat.view_as(hidden)
        if index + 1 == capture_layer:
            captured = hidden
    normed: Tensor = decoder.norm(hidden)
    return BatchOutput(hidden=normed, captured=captured)


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


def _layer(layer: DecoderLayer, hidden: Tensor, rotary: Rotary, mask: Tensor) -> Tensor:
    attended = _attended(layer.self_attn, layer.input_layernorm(hidden), rotary, mask)
    if layer.has_layer_scale:
        attended = layer.self_attn_layer_scale(attended)
    hidden = hidden + attended
    normed = layer.post_attention_layernorm(hidden)
    fed: Tensor = layer.mlp(normed.flatten(0, 1)).view_as(hidden)
    if layer.has_layer_scale:
        fed = layer.mlp_layer_scale(fed)
    return hidden + fed


def _attended(attention: Attention, hidden: Tensor, rotary: Rotary, mask: Tensor) -> Tensor:
    batch, length, _ = hidden.shape
    num_heads, num_kv_heads = attention.num_heads, attention.num_kv_heads
    heads = attention.qkv_proj(hidden).view(batch, length, -1, attention.head_dim)
    num_turned = num_heads + num_kv_heads
    turned, values = heads[:, :, :num_turned], heads[:, :, num_turned:]
    if attention.qk_weight is not None:
        normed = F.rms_norm(turned.float(), (attention.head_dim,), None, attention.eps)
        turned = normed * attention.qk_weight
    turned = rotary.rotate(turned)
    queries, keys = turned[:, :, :num_heads], turned[:, :, num_heads:]
    groups = num_heads // num_kv_heads
    queries = queries.view(batch, length, num_kv_heads, groups, -1).permute(0, 2, 3, 1, 4)
    keys = keys.permute(0, 2, 3, 1)[:, :, None]  # [B, Hkv, 1, D, n]
    # Plain products: on a CPU the fused kernel's gradient is several times slower.
    scores = queries @ keys * attention.head_dim**-0.5  # [B, Hkv, G, n, n]
    shares = scores.float().masked_fill(~mask, -torch.inf).softmax(dim=-1)
    mixed = shares.to(values.dtype) @ values.transpose(1, 2)[:, :, None]  # [B, Hkv, G, n, D]
    out: Tensor = attention.o_proj(mixed.permute(0, 3, 1, 2, 4).flatten(2))
    return out
