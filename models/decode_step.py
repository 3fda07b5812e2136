"""Single tokens through a decoder on a CPU, in as few and as quick operations as it takes.

At few rows of input a decoder is as quick as its matrices are read and its operations are called.
This is `Decoder.run_with` with the same mathematics in numpy: its calls cost a third of torch's,
and its BLAS reads the matrices for one row about twice as quickly (measured on 256 to 2048 inputs,
one thread). Arrays and tensors share their memory. Made once the weights are in place, which must
not change afterwards. The plain way stays in `models.decoder` for everything else: many tokens,
other devices and dtypes, gradients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.feed_forward import Experts, Mlp, SparseMlp
from models.threads import limit_blas_threads

if TYPE_CHECKING:
    from models.attention import Attend
    from models.decoder import Decoder, DecoderLayer, RmsNorm, Rotary

Array = NDArray[np.float32]


class DecodeStep:
    """The layers and the final norm of a decoder, for one token of each sequence at a time."""

    def __init__(self, decoder: Decoder) -> None:
        limit_blas_threads()
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
        x = hidden_states.numpy()
        turn = _Turn(rotary)
        captured = None
        with np.errstate(over="ignore"):  # of exp in a gate that is shut: 1 / inf is what it means
            for number, layer in enumerate(self._layers, start=1):
                x = layer(x, turn, attend)
                if number == capture_layer:
                    captured = torch.from_numpy(x)
            return torch.from_numpy(self._norm(x)), captured


class _Turn:
    """Rotation by the angles of some positions: frequency i turns the pair (i, i + D / 2)."""

    def __init__(self, rotary: Rotary) -> None:
        cos, sin = rotary.cos.numpy(), rotary.sin.numpy()  # [B or 1, 1, D]
        half = cos.shape[-1] // 2
        self._cos, self._sin = (angles.reshape(-1, 1, 2, half) for angles in (cos, sin))

    def __call__(self, heads: Array) -> Array:
        """[B, N, D] -> the same, turned."""
        pairs = heads.reshape(*heads.shape[:2], 2, -1)
        turned = pairs * self._cos
        turned += pairs[:, :, ::-1] * self._sin
        result: Array = turned.reshape(heads.shape)
        return result


class _NormStep:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis."""

    def __init__(self, norm: RmsNorm) -> None:
        size = norm.shape[0]
        self._weight = _array(norm.weight * math.sqrt(size))
        self._floor = size * norm.eps

    def __call__(self, x: Array) -> Array:
        """[B, H] -> [B, H]."""
        if len(x) == 1:
            row = x[0]
            scale = np.float32(1 / math.sqrt(row.dot(row) + self._floor))
            row_normed: Array = x * (self._weight * scale)
            return row_normed
        lengths = np.sqrt(np.einsum("bh,bh->b", x, x) + self._floor)
        normed: Array = x / lengths[:, None] * self._weight
        return normed


class _LayerStep:
    """One decoder layer."""

    def __init__(self, layer: DecoderLayer, index: int) -> None:
        attention = layer.self_attn
        self._index = index
        self._num_heads, self._head_dim = attention.num_heads, attention.head_dim
        self._num_turned = attention.num_heads + attention.num_kv_heads
        self._before = _NormStep(layer.input_layernorm)
        self._between = _NormStep(layer.post_attention_layernorm)
        self._qkv, self._out = _matrix(attention.qkv_proj), _matrix(attention.o_proj)
        self._head_floor = attention.head_dim * attention.eps
        self._head_weight: Array | None = None
        if attention.qk_weight is not None:
            self._head_weight = _array(attention.qk_weight * math.sqrt(attention.head_dim))
        self._feed = feed_step(layer.mlp)
        self._attention_scale = self._mlp_scale = None
        if layer.has_layer_scale:
            self._attention_scale = _array(layer.self_attn_layer_scale.scale)
            self._mlp_scale = _array(layer.mlp_layer_scale.scale)

    def __call__(self, x: Array, turn: _Turn, attend: Attend) -> Array:
        mixed = np.dot(self._mixed(self._before(x), turn, attend), self._out)
        x = x + (mixed if self._attention_scale is None else mixed * self._attention_scale)
        fed = self._feed(self._between(x))
        if self._mlp_scale is not None:
            fed *= self._mlp_scale
        fed += x
        return fed

    def _mixed(self, states: Array, turn: _Turn, attend: Attend) -> Array:
        heads = np.dot(states, self._qkv).reshape(len(states), -1, self._head_dim)
        turned = heads[:, : self._num_turned]  # [B, Hq + Hkv, D]
        if self._head_weight is not None:
            lengths = np.sqrt(np.einsum("bnd,bnd->bn", turned, turned) + self._head_floor)
            turned = turned / lengths[..., None]
            turned *= self._head_weight
        turned = turn(turned)
        queries, keys = turned[:, : self._num_heads], turned[:, self._num_heads :]
        return attend.arrays(self._index, queries, keys, heads[:, self._num_turned :])


class FeedStep:
    """A feed-forward that computes in torch: whatever has no quicker way."""

    def __init__(self, mlp: nn.Module) -> None:
        self._mlp = mlp

    def __call__(self, states: Array) -> Array:
        """[B, H] -> [B, H], its own memory."""
        fed: Array = self._mlp(torch.from_numpy(states)).numpy()
        return fed


class MlpStep(FeedStep):
    """Dense SwiGLU."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__(mlp)
        self._gate_up, self._down = _matrix(mlp.gate_up_proj), _matrix(mlp.down_proj)

    def __call__(self, states: Array) -> Array:
        fed: Array = np.dot(_gated(np.dot(states, self._gate_up)), self._down)
        return fed


class SparseStep(FeedStep):
    """Experts of one token; of more they are sorted, which is the plain way's affair."""

    def __init__(self, mlp: SparseMlp, experts: Experts) -> None:
        super().__init__(mlp)
        self._top_k, self._normalize = mlp.top_k, mlp.normalize_top_k
        self._router = _matrix(mlp.gate)
        self._gate_up = [_array(weight).T for weight in experts.gate_up_proj]
        self._down = [_array(weight).T for weight in experts.down_proj]
        self._shared: MlpStep | None = None
        if mlp.has_shared_expert:
            self._shared = MlpStep(mlp.shared_expert)
            self._shared_gate = _matrix(mlp.shared_expert_gate)

    def __call__(self, states: Array) -> Array:
        if len(states) > 1:
            return super().__call__(states)
        scores = np.dot(states, self._router)[0]
        best = scores.argsort()[: -self._top_k - 1 : -1]  # best first
        weights = np.exp(scores - scores[best[0]])
        chosen = weights[best]
        chosen /= chosen.sum() if self._normalize else weights.sum()
        mixed = np.zeros_like(states)
        for expert, weight in zip(best.tolist(), chosen, strict=True):
            made = np.dot(_gated(np.dot(states, self._gate_up[expert])), self._down[expert])
            made *= weight
            mixed += made
        if self._shared is not None:
            gate = np.dot(states, self._shared_gate)
            mixed += self._shared(states) / (1 + np.exp(-gate))
        return mixed


def project(layer: nn.Module, rows: Tensor) -> Tensor:
    """A linear layer without a bias, of few rows, the quick way where it has one: [B, in] -> [B,
    out].
    """
    if not isinstance(layer, nn.Linear) or not _is_plain(layer.weight):
        projected: Tensor = layer(rows)
        return projected
    return torch.from_numpy(np.dot(rows.numpy(), _matrix(layer)))


def feed_step(mlp: nn.Module) -> FeedStep:
    """The quickest way of a layer's feed-forward."""
    if isinstance(mlp, Mlp):
        return MlpStep(mlp)
    if isinstance(mlp, SparseMlp) and isinstance(mlp.experts, Experts):
        return SparseStep(mlp, mlp.experts)
    return FeedStep(mlp)


def _gated(gate_up: Array) -> Array:
    """silu(gate) * up of [B, 2 I] -> [B, I]."""
    size = gate_up.shape[1] // 2
    gate, up = gate_up[:, :size], gate_up[:, size:]
    inner = np.negative(gate)
    np.exp(inner, out=inner)
    inner += 1
    np.divide(gate, inner, out=inner)
    inner *= up
    return inner


def _is_plain(weight: Tensor) -> bool:
    is_float = weight.device.type == "cpu" and weight.dtype == torch.float32
    return is_float and torch.is_inference_mode_enabled()


def _matrix(layer: nn.Linear) -> Array:
    """[in, out], a view of the layer's weights."""
    return _array(layer.weight).T


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().numpy()
    return array
