"""A model of any size with random weights made where it lies: for timing, it says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from models.config import OmniConfig
from models.packed_matrices import Int4Matrices, ScaledRows
from models.placement import ExpertWeights
from models.qwen3_omni.model import Qwen3Omni
from models.skeleton import skeleton
from models.weights import finish, take_memory


@torch.no_grad()
def random_model(
    config: OmniConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    experts: ExpertWeights = "full",
    places: Mapping[str, torch.device] | None = None,
    seed: int = 0,
) -> Qwen3Omni:
    """Weights whose products keep about the size of their inputs; norms are one.

    Args:
        places: devices of stages that do not lie on `device`.

    Raises:
        ResourceError: the device has not enough free memory.
    """
    model = skeleton(config, dtype=dtype, experts=experts)
    take_memory(model, device, what="the model", places=places)
    for name, stage in model.named_children():
        place = (places or {}).get(name, device)
        _fill(stage, torch.Generator(place).manual_seed(seed))
    finish(model)
    return model


def _fill(stage: nn.Module, generator: torch.Generator) -> None:
    for module in stage.modules():
        if isinstance(module, ScaledRows | Int4Matrices):
            module.randomize(1.0 / math.sqrt(module.shape[-1]), generator)
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith(("bias", "alpha", "beta")) else 1.0)
            else:
                spread = 1.0 / math.sqrt(parameter.shape[-1])
                parameter.normal_(0.0, spread, generator=generator)
