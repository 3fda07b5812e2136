"""Single tokens through a decoder on a CPU, in as few operations as it takes.

At few rows of input a small decoder spends as long on calling operations as on its matrices. This
is `Decoder.run_with` with the same mathematics: the root-mean-square norms are a vector norm, a
`hypot` with what epsilon stands for, and a division; products go straight to the kernel with the
residual added by it; the halves of rotary pairs are swapped by one join. Made once the weights are
in place, which must not change afterwards. The plain way stays in `models.decoder` for everything
else: many tokens, other devices and dtypes, gradients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.feed_forward import Mlp

if TYPE_CHECKING:
    from models.attention import Attend
    from models.decoder import Decoder, DecoderLayer, RmsNorm, Rotary


class DecodeStep:
    """The layers and the final norm of a decoder, for one token of each sequence at a time."""

    def __init__(self, decoder: Decoder) -> None:
        layers = cast("list[DecoderLayer]", list(decoder.layers))
        self._layers = [_LayerStep(layer, index) for index, layer in enumerate(layers)]
        self._norm = _NormStep(decoder.norm)

    @staticmethod
    def fits(decoder: Decoder) -> bool:
        """Whether this was made for where the decoder's weights lie."""
        weight = decoder.norm.weight
        return weight.device.type == "cpu" and weight.dtype == torch.float32

    def __call__(
        self, hidden_states: Tensor, rotary: Rotary, attend: Attend, capture_layer: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, H] -> [B, H] after the final norm, and the output of the layer asked for."""
        captured = None
        for number, layer in enumerate(self._layers, start=1):
            hidden_states = layer(hidden_states, rotary, attend)
            if number == capture_layer:
                captured = hidden_states
        return self._norm(hidden_states), captured


class _NormStep:
    """x / sqrt(mean(x^2) + eps) * w, where sqrt(mean(x^2) + eps) is hypot(|x|, sqrt(n eps)) over
    sqrt(n).
    """

    def __init__(self, norm: RmsNorm) -> None:
        size = norm.shape[0]
        self._weight = norm.weight.detach() * math.sqrt(size)
        self._floor = torch.tensor(math.sqrt(size * norm.eps))

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) == 1:  # a norm of all is quicker than one of each row
            length: Tensor = torch.linalg.vector_norm(x)
        else:
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length.hypot_(self._floor) * self._weight


class _LayerStep:
    """One decoder layer."""

    def __init__(self, layer: DecoderLayer, index: int) -> None:
        attention = layer.self_attn
        self._index = index
        self._num_heads, self._num_kv_heads = attention.num_heads, attention.num_kv_heads
        self._head_dim = attention.head_dim
        self._before, self._between = (
            _NormStep(layer.input_layernorm),
            _NormStep(layer.post_attention_layernorm),
        )
        self._qkv, self._out = _matrix(attention.qkv_proj), _matrix(attention.o_proj)
        self._head_floor = torch.tensor(math.sqrt(attention.head_dim * attention.eps))
        self._head_weight: Tensor | None = None
        if attention.qk_weight is not None:
            self._head_weight = attention.qk_weight * math.sqrt(attention.head_dim)
        self._mlp = layer.mlp
        self._is_dense = isinstance(layer.mlp, Mlp)
        if isinstance(layer.mlp, Mlp):
            self._gate_up = _matrix(layer.mlp.gate_up_proj)
            self._down = _matrix(layer.mlp.down_proj)
        self._attention_scale: Tensor | None = None
        self._mlp_scale: Tensor | None = None
        if layer.has_layer_scale:
            self._attention_scale = layer.self_attn_layer_scale.scale
            self._mlp_scale = layer.mlp_layer_scale.scale

    def __call__(self, x: Tensor, rotary: Rotary, attend: Attend) -> Tensor:
        mixed = self._mixed(self._before(x), rotary, attend)
        x = _added(x, mixed, self._out, self._attention_scale)
        states = self._between(x)
        if not self._is_dense:
            fed: Tensor = self._mlp(states)
            return x + (fed if self._mlp_scale is None else fed * self._mlp_scale)
        gate, up = torch.mm(states, self._gate_up).chunk(2, dim=-1)
        return _added(x, F.silu(gate).mul_(up), self._down, self._mlp_scale)

    def _mixed(self, states: Tensor, rotary: Rotary, attend: Attend) -> Tensor:
        heads = torch.mm(states, self._qkv).view(len(states), -1, self._head_dim)
        num_turned = self._num_heads + self._num_kv_heads
        turned = heads[:, :num_turned]  # [B, Hq + Hkv, D]
        if self._head_weight is not None:
            lengths = torch.linalg.vector_norm(turned, dim=-1, keepdim=True)
            turned = (turned / lengths.hypot_(self._head_floor)).mul_(self._head_weight)
        low, high = turned.chunk(2, dim=-1)
        swapped = torch.cat((high, low), dim=-1)
        turned = torch.addcmul(turned * rotary.cos, swapped, rotary.sin)
        queries, keys = turned[:, : self._num_heads], turned[:, self._num_heads :]
        return attend(self._index, queries, keys, heads[:, num_turned:])


def _matrix(layer: nn.Linear) -> Tensor:
    """[in, out], a view of the layer's weights."""
    return layer.weight.detach().t()


def _added(x: Tensor, inner: Tensor, matrix: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return torch.addmm(x, inner, matrix)
    return torch.addcmul(x, torch.mm(inner, matrix), scale)
