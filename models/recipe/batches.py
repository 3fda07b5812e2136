"""The decoder over a batch of equally long sequences, with gradients: what training runs.

`models.decoder` serves one sequence with a cache; this uses the same modules' weights and computes
the same (tests hold it to that). Dense feed-forwards only: experts are chosen token by token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.decoder import Attention, Decoder, DecoderLayer, Rotary


def run_batch(decoder: Decoder, hidden: Tensor) -> Tensor:
    """[B, n, H] -> [B, n, H] after the final norm; positions are 0 .. n - 1."""
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    rotary = decoder.rotary(positions, hidden.dtype)
    mask = positions[:, None] >= positions
    if decoder.config.sliding_window is not None:
        mask = mask & (positions[:, None] < positions + decoder.config.sliding_window)
    for layer in cast(Iterable[DecoderLayer], decoder.layers):
        hidden = _layer(layer, hidden, rotary, mask)
    normed: Tensor = decoder.norm(hidden)
    return normed


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
    fed: Tensor = layer.mlp(layer.post_attention_layernorm(hidden))
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
        normed = F.rms_norm(turned, (attention.head_dim,), None, attention.eps)
        turned = normed * attention.qk_weight
    turned = rotary.rotate(turned)
    queries, keys = turned[:, :, :num_heads], turned[:, :, num_heads:]
    mixed = F.scaled_dot_product_attention(
        queries.transpose(1, 2),  # [B, heads, n, D]
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=mask,
        enable_gqa=True,
    )
    out: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return out
