"""A model on the meta device in the dtypes that it will have: what is to be filled, and its size.

The vocoder is float32 whatever was asked: its periodic activations turn to noise in bfloat16.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from models.config import OmniConfig
from models.errors import ResourceError
from models.packed_experts import pack_experts
from models.packed_matrices import GROUP
from models.placement import ExpertWeights
from models.qwen3_omni.model import Qwen3Omni

_FLOAT32_CHILDREN = ("code2wav",)


def skeleton(
    config: OmniConfig,
    *,
    dtype: torch.dtype,
    experts: ExpertWeights = "full",
    group: int = GROUP,
) -> Qwen3Omni:
    """A model without memory.

    Args:
        experts: how the thinker's experts are kept: in `dtype`, or in fewer bits.
        group: columns that share a scale in int4.
    """
    with torch.device("meta"):
        model = Qwen3Omni(config)
    set_dtypes(model, dtype)
    if experts != "full":
        pack_experts(model.thinker.model, experts, group=group)
    return model


def set_dtypes(model: nn.Module, dtype: torch.dtype) -> None:
    """`dtype` for all parameters that may have it."""
    model.to(dtype=dtype)
    for name in _FLOAT32_CHILDREN:
        child = getattr(model, name, None)
        if child is not None:
            child.to(dtype=torch.float32)


def count_parameters(config: OmniConfig) -> int:
    """Numbers of a model, however they are kept."""
    with torch.device("meta"):
        model = Qwen3Omni(config)
    return sum(parameter.numel() for parameter in model.parameters())


def pick_experts(name: str) -> ExpertWeights:
    """A setting's value, checked.

    Raises:
        ResourceError: an unknown name.
    """
    for known in get_args(ExpertWeights):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ResourceError(f"unknown experts {name!r}; say {', '.join(get_args(ExpertWeights))}")
