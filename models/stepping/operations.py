"""Which implementation of each kernel a step uses: chosen once, when the step is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import ResourceError
from models.kernels import (
    decode_attention,
    experts,
    gated_mlp,
    language,
    norm_projection,
    packed_experts,
    ring_attention,
    rotary_cache,
    sampling,
    snake_convolution,
)
from models.packed_matrices import PackedMatrices


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The kernels of a step; signatures are those of `models.kernels`."""

    name: str
    project: Callable[[Tensor, Tensor, Tensor | None, float, Tensor | None], Tensor]
    gate: Callable[[Tensor, Tensor, Tensor | None, float], Tensor]
    turn: Callable[..., Tensor]
    attend: Callable[[Tensor, tuple[Tensor, Tensor], Tensor, Tensor], Tensor]
    attend_ring: Callable[..., Tensor]
    route: Callable[..., tuple[Tensor, Tensor]]
    mix: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    mix_packed: Callable[[Tensor, Tensor, Tensor, PackedMatrices, PackedMatrices], Tensor]
    sample: Callable[..., Tensor]
    convolve: Callable[..., Tensor]


PLAIN = Operations(
    name="plain",
    project=norm_projection.reference,
    gate=gated_mlp.reference,
    turn=rotary_cache.reference,
    attend=decode_attention.reference,
    attend_ring=ring_attention.reference,
    route=experts.route_reference,
    mix=experts.mix_reference,
    mix_packed=packed_experts.mix_reference,
    sample=sampling.reference,
    convolve=snake_convolution.reference,
)
FUSED = Operations(
    name="fused",
    project=norm_projection.fused,
    gate=gated_mlp.fused,
    turn=rotary_cache.fused,
    attend=decode_attention.fused,
    attend_ring=ring_attention.fused,
    route=experts.route_fused,
    mix=experts.mix_fused,
    mix_packed=packed_experts.mix_fused,
    sample=sampling.fused,
    convolve=snake_convolution.fused,
)


def pick_operations(device: torch.device, name: str = "auto") -> Operations:
    """`plain`, `fused`, or `auto`: fused where the kernels run on a GPU.

    Raises:
        ResourceError: an unknown name, or kernels that can not run on `device`.
    """
    if name == "auto":
        name = "fused" if device.type == "cuda" and language.HAS_TRITON else "plain"
    if name == "plain":
        return PLAIN
    if name != "fused":
        raise ResourceError(f"unknown kernels {name!r}; say auto, plain or fused")
    if not language.can_run(device):
        raise ResourceError(f"fused kernels need a GPU and the package triton, not {device}")
    return FUSED
