"""Short pasts through a dense decoder: what each sequence sees lies in a ring of its slot.

For the code predictor's frames and for the vocoder's front, whose pasts are too short to be split
among programs or held in pages: five launches a layer. The plain path of the same mathematics is
`models.decoder`; that of long pasts is `models.stepping.decoder_step`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.decoder import Decoder, DecoderLayer
from models.feed_forward import Mlp
from models.stepping.operations import Operations


@dataclass(frozen=True, slots=True, kw_only=True)
class RingLayer:
    """What a step reads and writes of one layer.

    Attributes:
        norm, qkv, qk_gains: before attention, as `models.kernels.ring_attention` takes them.
        output: [H, Hq * D]. mlp_norm: [H]. gate_up: [2 * I, H]. down: [H, I].
        ring: keys and values, [num_slots, Hkv, window, D] each; position p lies at p % window.
    """

    norm: Tensor
    qkv: Tensor
    qk_gains: Tensor | None
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    ring: tuple[Tensor, Tensor]


class RingDecoder:
    """The layers of a decoder over the rings of `num_slots` sequences.

    Made once the weights are in place, which must stay. The weights are the model's own, but for
    layer scales: these are multiplied into copies of the two projections that they follow. Nothing
    needs clearing: what a ring holds of an earlier sequence is written over before it is seen.
    """

    def __init__(self, decoder: Decoder, *, num_slots: int, window: int) -> None:
        config = decoder.config
        self._eps, self._head_dim = config.rms_norm_eps, config.head_dim
        shape = (num_slots, config.num_kv_heads, window, config.head_dim)
        self.layers = [_ring_layer(layer, shape) for layer in decoder.layers]

    def __call__(
        self,
        hidden_states: Tensor,
        rotary: tuple[Tensor, Tensor],
        slots: Tensor,
        positions: Tensor,
        operations: Operations,
    ) -> Tensor:
        """P positions of each of B sequences: [P * B, H] -> [P * B, H] before the final norm.

        Args:
            hidden_states: row p * B + b is position `positions[b] + p` of the sequence in
                `slots[b]`.
            rotary: cosines and sines, [P * B, head_dim] each.
            slots, positions: [B] int64.
        """
        project, eps = operations.project, self._eps
        for layer in self.layers:
            heads = project(hidden_states, layer.qkv, layer.norm, eps, None)
            heads = heads.view(len(heads), -1, self._head_dim)  # [P * B, Hq + 2 Hkv, D]
            mixed = operations.attend_ring(
                heads, layer.qk_gains, eps, rotary, layer.ring, slots, positions
            ).flatten(1)  # [P * B, Hq * D]
            hidden_states = project(mixed, layer.output, None, eps, hidden_states)
            active = operations.gate(hidden_states, layer.gate_up, layer.mlp_norm, eps)
            hidden_states = project(active, layer.down, None, eps, hidden_states)
        return hidden_states


def _ring_layer(layer: nn.Module, ring: tuple[int, ...]) -> RingLayer:
    assert isinstance(layer, DecoderLayer)
    attention, mlp = layer.self_attn, layer.mlp
    assert isinstance(mlp, Mlp)
    output, down = attention.o_proj.weight.detach(), mlp.down_proj.weight.detach()
    if layer.has_layer_scale:
        output = output * layer.self_attn_layer_scale.scale.detach()[:, None]
        down = down * layer.mlp_layer_scale.scale.detach()[:, None]
    return RingLayer(
        norm=layer.input_layernorm.weight.detach(),
        qkv=attention.qkv_proj.weight.detach(),
        qk_gains=attention.qk_weight,
        output=output,
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=mlp.gate_up_proj.weight.detach(),
        down=down,
        ring=(output.new_zeros(ring), output.new_zeros(ring)),
    )
