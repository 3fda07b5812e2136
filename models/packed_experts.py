"""The mixture of experts over packed matrices: nearly all of a published model, in 8 or 4 bits.

Only the text decoder's experts are packed: 58 of the published 71 GB are theirs, a token reads few
of them, and an error of one is weighed down by the others. What every token reads stays as it is.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.decoder import Decoder
from models.feed_forward import ExpertMix, Experts, SparseMlp
from models.packed_matrices import (
    GROUP,
    Float8Matrices,
    Format,
    Int4Matrices,
    Int8Matrices,
    PackedMatrices,
)


class PackedExperts(ExpertMix):
    """Takes the place of stacked experts (on the meta device, before they have memory)."""

    gate_up_proj: PackedMatrices
    down_proj: PackedMatrices

    def __init__(self, experts: Experts, format: Format, group: int) -> None:
        super().__init__()
        self.num_experts = experts.num_experts
        for name in self.expert_weights:
            self.add_module(name, _packed(getattr(experts, name), format, group))

    def _expert(self, expert: int, hidden_states: Tensor) -> Tensor:
        gate, up = self.gate_up_proj.product(expert, hidden_states).chunk(2, dim=-1)
        return self.down_proj.product(expert, F.silu(gate) * up)

    def _pairs(self, chosen: Tensor, states: Tensor) -> Tensor:
        gate, up = self.gate_up_proj.products(chosen, states).chunk(2, dim=-1)
        return self.down_proj.products(chosen, F.silu(gate) * up)


def pack_experts(decoder: Decoder, format: Format, *, group: int = GROUP) -> None:
    """Keep the experts of all layers packed; `group`: columns of a group of 4-bit levels."""
    for module in decoder.modules():
        if isinstance(module, SparseMlp):
            assert isinstance(module.experts, Experts), "packed already"
            module.experts = PackedExperts(module.experts, format, group)


def _packed(stack: Tensor, format: Format, group: int) -> nn.Module:
    num, rows, columns = stack.shape
    with stack.device:
        match format:
            case "int8":
                return Int8Matrices(num, rows, columns)
            case "fp8":
                return Float8Matrices(num, rows, columns)
            case "int4":
                return Int4Matrices(num, rows, columns, group=group)
