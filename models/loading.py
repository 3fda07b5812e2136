"""A checkpoint's weights, placed as an engine's owner asks by names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.config import OmniConfig
from models.devices import pick_device, pick_dtype
from models.qwen3_omni.model import Qwen3Omni
from models.skeleton import pick_experts
from models.weights import load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where weights lie and as which numbers, by the names that settings have.

    `device`, `dtype`: see `models.devices`. `experts`: see `models.skeleton`.
    """

    device: str = "auto"
    dtype: str = "auto"
    experts: str = "full"


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
    )
