"""One token of each of many sequences through a decoder: the sequences' pages are read and written
where they lie, and nothing depends on what the host knows.

The plain path of the same mathematics for one sequence is `models.decoder`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.decoder import Decoder, DecoderLayer
from models.feed_forward import Experts, Mlp, SparseMlp
from models.packed_experts import PackedExperts
from models.stepping.operations import Operations
from models.stepping.pages import PagePool


def step_decoder(
    decoder: Decoder,
    hidden_states: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: PagePool,
    page_table: Tensor,
    lengths: Tensor,
    operations: Operations,
) -> Tensor:
    """[B, H] embeddings -> [B, H] before the final norm; `lengths` stays.

    Args:
        rotary: cosines and sines, [B, head_dim] each.
        page_table: [B, max_pages] int32. lengths: [B] int32, positions before this one.
    """
    seen = lengths + 1
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        attention, eps = layer.self_attn, layer.self_attn.eps
        heads = operations.project(
            hidden_states, attention.qkv_proj.weight, layer.input_layernorm.weight, eps, None
        ).view(len(hidden_states), -1, attention.head_dim)  # [B, Hq + 2 Hkv, D]
        pages = pool.layer(index)
        queries = operations.turn(
            heads, attention.qk_weight, eps, rotary, pages, page_table, lengths
        )
        mixed = operations.attend(queries, pages, page_table, seen).flatten(1)  # [B, Hq * D]
        hidden_states = operations.project(mixed, attention.o_proj.weight, None, eps, hidden_states)
        hidden_states = _feed_forward(layer, hidden_states, operations)
    return hidden_states


def final_projection(
    decoder: Decoder, hidden_states: Tensor, weight: Tensor, operations: Operations
) -> Tensor:
    """Final norm and an output head: [B, H] -> [B, N]."""
    norm = decoder.norm
    return operations.project(hidden_states, weight, norm.weight, norm.eps, None)


def angles(decoder: Decoder, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of [B] positions, [B, head_dim] each."""
    rotary = decoder.rotary(positions, dtype)
    return rotary.cos.squeeze(1), rotary.sin.squeeze(1)


def _feed_forward(layer: DecoderLayer, rows: Tensor, operations: Operations) -> Tensor:
    """[B, H] -> [B, H], residual included."""
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    if isinstance(mlp, Mlp):
        active = operations.gate(rows, mlp.gate_up_proj.weight, norm.weight, norm.eps)
        return operations.project(active, mlp.down_proj.weight, None, norm.eps, rows)
    assert isinstance(mlp, SparseMlp)
    normed = norm(rows)
    experts, weights = operations.route(
        F.linear(normed, mlp.gate.weight), mlp.top_k, is_normalized=mlp.normalize_top_k
    )
    stacked = mlp.experts
    if isinstance(stacked, PackedExperts):
        mix_packed = operations.mix_packed
        mixed = mix_packed(normed, experts, weights, stacked.gate_up_proj, stacked.down_proj)
    else:
        assert isinstance(stacked, Experts)
        mixed = operations.mix(normed, experts, weights, stacked.gate_up_proj, stacked.down_proj)
    if mlp.has_shared_expert:
        shared = mlp.shared_expert
        active = operations.gate(normed, shared.gate_up_proj.weight, None, norm.eps)
        share = torch.sigmoid(mlp.shared_expert_gate(normed))
        mixed = torch.addcmul(mixed, share, F.linear(active, shared.down_proj.weight))
    return rows + mixed
