"""What a model would take of this machine's memory, stage by stage: a part of `omnid doctor`."""

from __future__ import annotations

from pathlib import Path

from models.config import OmniConfig, parse_config, read_config
from models.devices import format_bytes
from models.errors import CheckpointError
from models.loading import advice, packed_group, place
from models.memory_plan import device_bytes
from models.packed_matrices import GROUP
from models.placement import Placement
from models.sizes import SIZES
from models.tiny_config import tiny_config


def print_plan(model: str, placement: Placement, *, num_sessions: int, context_tokens: int) -> bool:
    """Print each stage's bytes and device; whether all of it fits.

    Raises:
        CheckpointError, ResourceError: no such model, or a device that is not here.
    """
    config, group = _config(model)
    placed = place(
        config,
        placement,
        num_sessions=num_sessions,
        context_tokens=context_tokens,
        group=group,
    )
    dtype = str(placed.dtype).removeprefix("torch.")
    print(f"\nMemory of {model}, {num_sessions} conversations of {context_tokens} tokens")
    print(f"  numbers are {dtype}, the thinker's experts {placed.experts}")
    for stage, parts in placed.plan.items():
        print(
            f"  {stage} on {placed.places[stage]}: weights {format_bytes(parts.weights)},"
            f" caches {format_bytes(parts.caches)},"
            f" state and passing {format_bytes(parts.state + parts.passing)}"
        )
    for device in dict.fromkeys(placed.places[stage] for stage in placed.plan):
        need = format_bytes(device_bytes(placed.plan, placed.places, device))
        free = format_bytes(placed.free_bytes[device])
        print(f"  {device}: {need} with what libraries take; {free} free")
    if placed.shortage is None:
        print("  It fits.")
        return True
    hint = advice(config, placed, num_sessions=num_sessions, context_tokens=context_tokens)
    print(f"  It does not fit; {hint}.")
    return False


def _config(model: str) -> tuple[OmniConfig, int]:
    """A checkpoint folder's, or that of a named size; and the group of its packed experts."""
    if model in SIZES:
        return parse_config(tiny_config(SIZES[model])), GROUP
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"no such checkpoint folder: {model} (nothing is downloaded here)")
    return read_config(folder), packed_group(folder)
