"""A checkpoint's weights, placed as an engine's owner asks by names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.config import OmniConfig
from models.devices import pick_device, pick_dtype
from models.memory_plan import place_stages
from models.qwen3_omni.model import Qwen3Omni
from models.skeleton import pick_experts
from models.weights import load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where weights lie and as which numbers, by the names that settings have.

    `device`, `dtype`: see `models.devices`. `experts`: see `models.skeleton`. `devices`: of stages
    (`models.memory_plan.STAGES`) that do not lie on `device`.
    """

    device: str = "auto"
    dtype: str = "auto"
    experts: str = "full"
    devices: Mapping[str, str] = field(default_factory=dict)


DEFAULT_PLACEMENT = Placement()


def load_placed(folder: Path, config: OmniConfig, placement: Placement) -> Qwen3Omni:
    """The model of a checkpoint folder.

    Raises:
        CheckpointError, ResourceError: it can not be loaded so; the message says why on one line.
    """
    device = pick_device(placement.device)
    return load_model(
        folder,
        config,
        device=device,
        dtype=pick_dtype(device, placement.dtype),
        experts=pick_experts(placement.experts),
        places=place_stages(placement.devices, device),
    )
