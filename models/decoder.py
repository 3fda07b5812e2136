"""The one decoder-only transformer: thinker, talker, code predictor and the vocoder's front.

Grouped-query attention with q/k norm and (interleaved multimodal) rotary positions, dense or sparse
feed-forward, and the layer scales and sliding window of the vocoder's front. No batch dimension:
rows are [T, H], the tokens of one sequence, or [B, H], the next token of each of several; how they
see what came before is handed along (`models.attention`). The embedding tables belong to the
owners. Follows the modules of Hugging Face `qwen3_omni_moe`; submodule names are the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import attention
from models.attention import Attend
from models.cache import DecoderCache, PooledCache
from models.config import DecoderConfig
from models.decode_step import DecodeStep
from models.feed_forward import Mlp, SparseMlp


@dataclass(frozen=True, slots=True, kw_only=True)
class Deepstack:
    """Features of visual tokens that are added after the first decoder layers.

    Attributes:
        index: [V] int64, which of this call's tokens they belong to.
        features: [D, V, H]; row d is added to the output of layer d.
    """

    index: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True)
class DecoderOutput:
    """What one forward made.

    Attributes:
        hidden_states: [T, H] after the final norm. captured: [T, H], output of the layer asked for,
        before any norm; None where none was asked for.
    """

    hidden_states: Tensor
    captured: Tensor | None


@dataclass(frozen=True, slots=True)
class Rotary:
    """Cosines and sines of some positions, [T, 1, head_dim]; the first half of `sin` is negated."""

    cos: Tensor
    sin: Tensor

    def rotate(self, heads: Tensor) -> Tensor:
        """Rotate [T, num_heads, head_dim]; frequency i turns the pair (i, i + head_dim / 2)."""
        swapped = heads.roll(heads.shape[-1] // 2, dims=-1)
        return torch.addcmul(heads * self.cos, swapped, self.sin)

    def repeat(self, num_rows: int) -> Rotary:
        """The angles again and again for `num_rows` rows; those of one position fit all as they
        are.
        """
        num_positions = len(self.cos)
        if num_positions in (1, num_rows):
            return self
        times = (num_rows // num_positions, 1, 1)
        return Rotary(self.cos.repeat(times), self.sin.repeat(times))


class RmsNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.shape = (size,)
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        return F.rms_norm(hidden_states, self.shape, self.weight, self.eps)


class RotaryEmbedding(nn.Module):
    """Rotary angles of positions that may be fractional and have three rows (T, H, W)."""

    inv_freq: Tensor  # [head_dim / 2] float32
    rows: Tensor  # [head_dim / 2] int64, the position row of each frequency

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self._head_dim = config.head_dim
        self._rope = config.rope
        self.register_buffer("inv_freq", None, persistent=False)
        self.register_buffer("rows", None, persistent=False)

    def build_constants(self, device: torch.device) -> None:
        """Make the frequencies, in float32 whatever the weights' dtype is."""
        exponents = torch.arange(0, self._head_dim, 2, dtype=torch.float32) / self._head_dim
        rows = torch.zeros(self._head_dim // 2, dtype=torch.int64)
        for row, width in enumerate(self._rope.mrope_section or ()):
            if row > 0:  # T, H, W take turns while H and W last; the rest is T's
                rows[row : 3 * width : 3] = row
        self.inv_freq = (1.0 / self._rope.theta**exponents).to(device)
        self.rows = rows.to(device)

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> Rotary:
        """Angles of `position_ids`, [T] or [3, T]; three equal rows give the same as [T]."""
        positions = position_ids.float()
        if positions.dim() == 1:
            angles = positions.unsqueeze(-1) * self.inv_freq  # [T, D / 2]
        else:
            angles = positions.index_select(0, self.rows).t() * self.inv_freq  # [T, D / 2]
        cos, sin = angles.cos(), angles.sin()
        return Rotary(
            torch.cat((cos, cos), dim=-1).to(dtype).unsqueeze(1),  # [T, 1, D]
            torch.cat((-sin, sin), dim=-1).to(dtype).unsqueeze(1),
        )


class Attention(nn.Module):
    """Projections, norms and rotation around grouped-query attention."""

    packed_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "qkv_proj": ("q_proj", "k_proj", "v_proj")
    }
    qk_weight: (
        Tensor | None
    )  # [num_heads + num_kv_heads, head_dim], both norms' weights for one pass

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        self.eps = config.rms_norm_eps
        query_size = config.num_heads * config.head_dim
        kv_size = config.num_kv_heads * config.head_dim
        self.packed_sizes: Mapping[str, tuple[int, ...]] = {
            "qkv_proj": (query_size, kv_size, kv_size)
        }
        self.qkv_proj = nn.Linear(config.hidden_size, query_size + 2 * kv_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = RmsNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RmsNorm(config.head_dim, config.rms_norm_eps)
        self.has_qk_norm = config.qk_norm
        self.register_buffer("qk_weight", None, persistent=False)

    def build_constants(self, device: torch.device) -> None:
        """Lay both norms' weights out head by head."""
        if self.has_qk_norm:
            queries = self.q_norm.weight.detach().expand(self.num_heads, -1)
            keys = self.k_norm.weight.detach().expand(self.num_kv_heads, -1)
            self.qk_weight = torch.cat((queries, keys)).to(device)

    def forward(self, hidden_states: Tensor, rotary: Rotary, attend: Attend, layer: int) -> Tensor:
        """[T, H] -> [T, H]."""
        num_tokens = hidden_states.shape[0]
        num_turned = self.num_heads + self.num_kv_heads
        heads = self.qkv_proj(hidden_states).view(num_tokens, -1, self.head_dim)  # [T, Hq+2Hkv, D]
        turned, values = heads[:, :num_turned], heads[:, num_turned:]
        if self.qk_weight is not None:
            turned = F.rms_norm(turned, (self.head_dim,), None, self.eps) * self.qk_weight
        turned = rotary.rotate(turned)
        queries, keys = turned[:, : self.num_heads], turned[:, self.num_heads :]
        projected: Tensor = self.o_proj(attend(layer, queries, keys, values))
        return projected


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states * self.scale


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.input_layernorm = RmsNorm(size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(size, config.rms_norm_eps)
        self.mlp: nn.Module
        if config.moe is None:
            self.mlp = Mlp(size, config.intermediate_size)
        else:
            self.mlp = SparseMlp(size, config.moe)
        self.has_layer_scale = config.layer_scale
        if config.layer_scale:
            self.self_attn_layer_scale = LayerScale(size)
            self.mlp_layer_scale = LayerScale(size)

    def forward(self, hidden_states: Tensor, rotary: Rotary, attend: Attend, layer: int) -> Tensor:
        """[T, H] -> [T, H]; `layer` is this layer's number."""
        attended = self.self_attn(self.input_layernorm(hidden_states), rotary, attend, layer)
        if self.has_layer_scale:
            attended = self.self_attn_layer_scale(attended)
        hidden_states = hidden_states + attended
        fed: Tensor = self.mlp(self.post_attention_layernorm(hidden_states))
        if self.has_layer_scale:
            fed = self.mlp_layer_scale(fed)
        return hidden_states + fed


class Decoder(nn.Module):
    """Layers and final norm; owners add their embedding tables in a subclass or beside it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(config)
        self._step: DecodeStep | None = None

    def prepare_step(self) -> None:
        """Make the quicker way of single tokens, where there is one. The weights must stay."""
        self._step = DecodeStep(self) if DecodeStep.fits(self) else None

    def forward(
        self,
        hidden_states: Tensor,
        position_ids: Tensor,
        cache: DecoderCache,
        *,
        deepstack: Deepstack | None = None,
        capture_layer: int | None = None,
    ) -> DecoderOutput:
        """Append T tokens to the sequence in `cache`.

        Args:
            hidden_states: [T, H] embeddings.
            position_ids: [T], or [3, T] for the rows T, H, W; kept as float32.
            cache: keys and values of what came before; the new tokens are appended.
            deepstack: features added after the first layers.
            capture_layer: number of layers after which the hidden states are captured, deepstack
                included: 24 captures the output of layer index 23.

        Raises:
            ResourceError: the cache is full; it was not changed.
        """
        rotary = self.rotary(position_ids, hidden_states.dtype)
        return self.run(
            hidden_states, rotary, cache, deepstack=deepstack, capture_layer=capture_layer
        )

    def run(
        self,
        hidden_states: Tensor,
        rotary: Rotary,
        cache: DecoderCache,
        *,
        deepstack: Deepstack | None = None,
        capture_layer: int | None = None,
    ) -> DecoderOutput:
        """`forward` with ready angles, for owners whose positions repeat."""
        num_tokens = hidden_states.shape[0]
        cache.reserve(num_tokens)
        mask = _attention_mask(
            num_tokens, cache.num_visible, self.config.sliding_window, hidden_states.device
        )
        attend = attention.Sequence(cache, mask)
        if num_tokens == 1 and mask is None and deepstack is None:
            output = self.run_with(hidden_states, rotary, attend, capture_layer=capture_layer)
        else:
            output = self._through(hidden_states, rotary, attend, deepstack, capture_layer)
        cache.advance(num_tokens)
        return output

    def run_spans(
        self,
        hidden_states: Tensor,
        position_ids: Tensor,
        caches: Sequence[DecoderCache],
        counts: Sequence[int],
        *,
        deepstack: Deepstack | None = None,
        capture_layer: int | None = None,
    ) -> DecoderOutput:
        """`forward` for several sequences in one pass over the weights.

        Args:
            hidden_states: [T, H], `counts[i]` tokens for `caches[i]`, one sequence after the other.
            position_ids: [T] or [3, T].

        Raises:
            ResourceError: a cache is full; none was changed.
        """
        first, window = caches[0], self.config.sliding_window
        is_pooled = window is None and isinstance(first, PooledCache)
        if len(caches) == 1 and not is_pooled:
            return self.forward(
                hidden_states, position_ids, first, deepstack=deepstack, capture_layer=capture_layer
            )
        spans = list(zip(caches, counts, strict=True))
        for cache, count in spans:
            cache.reserve(count)
        if isinstance(first, PooledCache) and is_pooled:
            attend = first.attend_spans(caches, counts)
        else:
            masks = [
                _attention_mask(count, cache.num_visible, window, hidden_states.device)
                for cache, count in spans
            ]
            attend = attention.Spans(list(map(attention.Sequence, caches, masks)), counts)
        rotary = self.rotary(position_ids, hidden_states.dtype)
        output = self._through(hidden_states, rotary, attend, deepstack, capture_layer)
        for cache, count in spans:
            cache.advance(count)
        return output

    def run_rows(
        self,
        hidden_states: Tensor,
        rotary: Rotary,
        caches: Sequence[DecoderCache],
        *,
        capture_layer: int | None = None,
    ) -> DecoderOutput:
        """`run` for the next token of each of several sequences: row i is appended to `caches[i]`.

        Args:
            hidden_states: [B, H]. rotary: angles of B positions.

        Raises:
            ResourceError: a cache is full; none was changed.
        """
        for cache in caches:
            cache.reserve(1)
        attend: Attend
        attend = attention.Sequence(caches[0]) if len(caches) == 1 else attention.Rows(caches)
        output = self.run_with(hidden_states, rotary, attend, capture_layer=capture_layer)
        for cache in caches:
            cache.advance(1)
        return output

    def run_with(
        self,
        hidden_states: Tensor,
        rotary: Rotary,
        attend: Attend,
        *,
        capture_layer: int | None = None,
    ) -> DecoderOutput:
        """Rows that see what `attend` has kept for them: [B, H], the quick way where there is one.

        Room for them is made before, and they are counted afterwards, by the caller.
        """
        if self._step is not None and torch.is_inference_mode_enabled():
            return DecoderOutput(*self._step(hidden_states, rotary, attend, capture_layer))
        return self._through(hidden_states, rotary, attend, None, capture_layer)

    def _through(
        self,
        hidden_states: Tensor,
        rotary: Rotary,
        attend: Attend,
        deepstack: Deepstack | None,
        capture_layer: int | None,
    ) -> DecoderOutput:
        captured = None
        num_levels = 0 if deepstack is None else deepstack.features.shape[0]
        for index, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states, rotary, attend, index)
            if deepstack is not None and index < num_levels:
                hidden_states = hidden_states.index_add(
                    0, deepstack.index, deepstack.features[index]
                )
            if index + 1 == capture_layer:
                captured = hidden_states
        return DecoderOutput(self.norm(hidden_states), captured)


def _attention_mask(
    num_tokens: int, num_visible: int, window: int | None, device: torch.device
) -> Tensor | None:
    """Which of the visible and new keys each new token sees: [T, P + T] bool, aligned at the end.

    None: all of them where T is 1, else plainly causal (no earlier positions).
    """
    num_keys = num_visible + num_tokens
    fits_window = window is None or num_keys <= window
    if fits_window and (num_tokens == 1 or num_visible == 0):
        return None
    keys = torch.arange(num_keys, device=device)
    queries = keys[num_visible:, None]
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)
