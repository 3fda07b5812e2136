"""A checkpoint's weights, placed as an engine's owner asks by names, if they fit there.

Memory is asked before anything is allocated: weights, what steps need in passing, and the caches of
one conversation. More conversations share what is left (`models.cache_budget`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from models.config import OmniConfig
from models.devices import describe_device, pick_device, pick_dtype
from models.errors import ResourceError
from models.memory_plan import StagePlan, place_stages, plan_memory, shortage, spread_stages
from models.packed_matrices import GROUP
from models.packing import read_packing
from models.placement import ExpertWeights, Placement
from models.qwen3_omni.model import Qwen3Omni
from models.random_weights import random_model
from models.skeleton import pick_experts
from models.weights import load_model

CONTEXT_TOKENS = 8192  # of the one conversation that must fit
_FEWER_BYTES: Final[tuple[ExpertWeights, ...]] = ("full", "int8", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A placement made out: each stage's device and bytes, and what is free on these devices.

    `group`: columns that share a scale where experts are kept in int4.
    """

    dtype: torch.dtype
    experts: ExpertWeights
    places: Mapping[str, torch.device]
    plan: Mapping[str, StagePlan]
    free_bytes: Mapping[torch.device, int]
    group: int = GROUP

    @property
    def shortage(self) -> str | None:
        """What does not fit; None where all does."""
        return shortage(self.plan, self.places, self.free_bytes)


def place(
    config: OmniConfig,
    placement: Placement,
    *,
    num_sessions: int = 1,
    context_tokens: int = CONTEXT_TOKENS,
    group: int = GROUP,
) -> Placed:
    """Make a placement out, whether it fits or not; `group` is the checkpoint's.

    With `device = "auto"` and no stage's device named, talker and vocoder go to a second GPU where
    the first has no room for all.

    Raises:
        ResourceError: an unknown name, or a device that is not here.
    """
    device = pick_device(placement.device)
    dtype, experts = pick_dtype(device, placement.dtype), pick_experts(placement.experts)
    places = place_stages(placement.devices, device)
    plan = plan_memory(
        config,
        num_sessions=num_sessions,
        context_tokens=context_tokens,
        dtype=dtype,
        experts=experts,
        group=group,
    )
    devices = list(dict.fromkeys(places.values()))
    is_free = placement.device == "auto" and not placement.devices and device.type == "cuda"
    if is_free:
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    free_bytes = {each: describe_device(each).free_bytes for each in devices}
    if is_free:
        places = spread_stages(plan, devices, free_bytes)
    return Placed(
        dtype=dtype,
        experts=experts,
        places=places,
        plan=plan,
        free_bytes=free_bytes,
        group=group,
    )


def advice(
    config: OmniConfig,
    placed: Placed,
    *,
    num_sessions: int = 1,
    context_tokens: int = CONTEXT_TOKENS,
) -> str:
    """Which setting would make it fit."""
    dtypes = (placed.dtype, torch.bfloat16) if placed.dtype.itemsize > 2 else (placed.dtype,)
    for experts in _FEWER_BYTES[_FEWER_BYTES.index(placed.experts) :]:
        for dtype in dtypes:
            plan = plan_memory(
                config,
                num_sessions=num_sessions,
                context_tokens=context_tokens,
                dtype=dtype,
                experts=experts,
                group=placed.group,
            )
            if replace(placed, plan=plan).shortage is None:
                wanted = {"dtype": str(dtype).removeprefix("torch."), "experts": experts}
                is_new = {"dtype": dtype != placed.dtype, "experts": experts != placed.experts}
                changes = [f"{name} = {value}" for name, value in wanted.items() if is_new[name]]
                return f"it would fit with {' and '.join(changes)}"
    return "no dtype and no packing of experts makes it fit: free memory, or name other devices"


def packed_group(folder: Path) -> int:
    """Columns that share a scale where a checkpoint's experts are kept in int4.

    Raises:
        CheckpointError: its matrices are packed in a way that can not be read.
    """
    packing = read_packing(folder)
    return GROUP if packing is None else packing.kept_group


def load_placed(folder: Path, config: OmniConfig, placement: Placement) -> Qwen3Omni:
    """The model of a checkpoint folder.

    Raises:
        CheckpointError, ResourceError: it can not be loaded so; the message says why on one line.
    """
    placed = place(config, placement, group=packed_group(folder))
    check(config, placed, what=str(folder))
    return load_model(
        folder,
        config,
        device=placed.places["thinker"],
        dtype=placed.dtype,
        experts=placed.experts,
        places=placed.places,
    )


def random_placed(config: OmniConfig, placement: Placement) -> Qwen3Omni:
    """Random weights of a config's sizes, made where they lie.

    Raises:
        ResourceError: they do not fit; the message says what would.
    """
    placed = place(config, placement)
    check(config, placed, what="a model of these sizes")
    return random_model(
        config,
        device=placed.places["thinker"],
        dtype=placed.dtype,
        experts=placed.experts,
        places=placed.places,
    )


def check(config: OmniConfig, placed: Placed, *, what: str) -> None:
    """Refuse what does not fit.

    Raises:
        ResourceError: says what is needed, what is there, and what would fit.
    """
    lack = placed.shortage
    if lack is not None:
        raise ResourceError(f"{what} does not fit: {lack}; {advice(config, placed)}")
