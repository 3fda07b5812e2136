"""What of a model lies where, and how much: from the config alone, nothing is allocated.

Counts weights, the caches of so many sessions, the state of their voices, and what steps and
libraries need in passing. Where more than one device is named, each stage lies on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.config import DecoderConfig, OmniConfig
from models.devices import format_bytes, pick_device
from models.errors import ResourceError
from models.packed_matrices import GROUP
from models.placement import STAGES, ExpertWeights
from models.skeleton import skeleton

WORKSPACE_BYTES = 2 * 2**30  # CUDA's own, a matrix library's, graphs' temporary memory
CPU_WORKSPACE_BYTES = 2**28  # buffers of products and of allocators
PREFILL_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """Bytes of one stage: `weights`, `caches` of all sessions, `state` beside them, in passing."""

    weights: int
    caches: int
    state: int
    passing: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.caches + self.state + self.passing


def plan_memory(
    config: OmniConfig,
    *,
    num_sessions: int,
    context_tokens: int,
    dtype: torch.dtype,
    experts: ExpertWeights = "full",
    group: int = GROUP,
) -> dict[str, StagePlan]:
    """Bytes of each stage of STAGES that the checkpoint has.

    Args:
        dtype: of weights and caches; the vocoder is float32 always.
        experts: how the thinker's are kept. group: columns that share a scale in int4.
    """
    model = skeleton(config, dtype=dtype, experts=experts, group=group)
    thinker = config.thinker.decoder
    plan = {
        "thinker": StagePlan(
            weights=_weights(model.thinker),
            caches=num_sessions * context_tokens * kv_bytes_per_token(thinker, dtype),
            state=0,
            passing=_passing(thinker, dtype) + 4 * num_sessions * thinker.vocab_size,
        )
    }
    if config.talker is not None and model.talker is not None:
        talker = config.talker.decoder
        scratch = 16 * kv_bytes_per_token(config.talker.predictor, dtype)
        plan["talker"] = StagePlan(
            weights=_weights(model.talker),
            caches=num_sessions * context_tokens * kv_bytes_per_token(talker, dtype),
            state=num_sessions * (scratch + talker.vocab_size),
            passing=_passing(talker, dtype),
        )
    if config.vocoder is not None and model.code2wav is not None:
        front = config.vocoder.transformer
        assert front.sliding_window is not None
        rings = front.sliding_window * kv_bytes_per_token(front, torch.float32)
        tails = 4 * sum(channels * length for channels, length in model.code2wav.tail_shapes)
        samples = model.code2wav.samples_per_frame
        # A step's copies of what layer scales follow.
        scaled = sum(
            parameter.nbytes
            for name, parameter in model.code2wav.pre_transformer.named_parameters()
            if front.layer_scale and name.endswith(("o_proj.weight", "down_proj.weight"))
        )
        plan["code2wav"] = StagePlan(
            weights=_weights(model.code2wav),
            caches=num_sessions * rings,
            state=num_sessions * tails + scaled,
            # The widest activations, twice (in and out), at a sixteenth of the channels at the end.
            passing=num_sessions * 4 * samples * config.vocoder.decoder_size // 8,
        )
    return plan


def kv_bytes_per_token(config: DecoderConfig, dtype: torch.dtype) -> int:
    """Keys and values of one position in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize


def place_stages(devices: Mapping[str, str], default: torch.device) -> dict[str, torch.device]:
    """Each stage's device; stages that are not named lie on `default`.

    Raises:
        ResourceError: an unknown stage, or a device that is not here.
    """
    unknown = sorted(set(devices) - set(STAGES))
    if unknown:
        raise ResourceError(f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    return {stage: pick_device(devices[stage]) if stage in devices else default for stage in STAGES}


def spread_stages(
    plan: Mapping[str, StagePlan],
    devices: Sequence[torch.device],
    free_bytes: Mapping[torch.device, int],
) -> dict[str, torch.device]:
    """All stages on the first device; if they do not fit there, but do so with talker and vocoder
    on another one, that.
    """
    together = dict.fromkeys(STAGES, devices[0])
    for other in devices:
        places = {**together, "talker": other, "code2wav": other}
        if shortage(plan, places, free_bytes) is None:
            return places
    return together


def shortage(
    plan: Mapping[str, StagePlan],
    places: Mapping[str, torch.device],
    free_bytes: Mapping[torch.device, int],
) -> str | None:
    """Which device has less memory than its stages need, and what each of them takes; None where
    all fits.
    """
    for device in dict.fromkeys(places[stage] for stage in plan):
        stages = [stage for stage in plan if places[stage] == device]
        need = device_bytes(plan, places, device)
        if need > free_bytes[device]:
            parts = ", ".join(f"{stage} {format_bytes(plan[stage].total)}" for stage in stages)
            return (
                f"{format_bytes(need)} are needed on {device} ({parts}),"
                f" {format_bytes(free_bytes[device])} are free"
            )
    return None


def device_bytes(
    plan: Mapping[str, StagePlan], places: Mapping[str, torch.device], device: torch.device
) -> int:
    """What all stages on a device need, and its libraries."""
    workspace = CPU_WORKSPACE_BYTES if device.type == "cpu" else WORKSPACE_BYTES
    return workspace + sum(plan[stage].total for stage in plan if places[stage] == device)


def _weights(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _passing(config: DecoderConfig, dtype: torch.dtype) -> int:
    """Activations of one prefill unit: of a layer's widest product and of the experts' copies."""
    widest = config.num_heads * config.head_dim + 2 * config.num_kv_heads * config.head_dim
    if config.moe is not None:
        widest += config.moe.num_experts_per_token * 3 * config.moe.expert_size
        widest += config.moe.num_experts_per_token * 2 * config.hidden_size
    widest += 2 * config.intermediate_size + 4 * config.hidden_size
    return PREFILL_TOKENS * widest * dtype.itemsize
