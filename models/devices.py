"""What hardware is here, and what of a model fits on it.

Answers questions only: it places no tensor and sets no global of torch. Memory of the CPU is what
this process may still take: free memory of the machine, or of the control group (container) if
that is less.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from models.errors import ResourceError

_CGROUP = Path("/sys/fs/cgroup")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One device: its torch name (`cpu`, `cuda:0`), what it is, and its memory."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` is the first CUDA device, else the CPU.

    Raises:
        ResourceError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise ResourceError(f"unknown device {name!r}; say auto, cpu or cuda:N")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ResourceError(
            f"no device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device("cuda", index)


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The dtype called `name`; `auto` is float32 on the CPU and bfloat16 on CUDA.

    Raises:
        ResourceError: an unknown name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ResourceError(f"unknown dtype {name!r}; say auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def describe_devices() -> tuple[DeviceInfo, ...]:
    """All usable devices, the one that `auto` picks first."""
    cuda = tuple(describe_device(torch.device("cuda", i)) for i in range(torch.cuda.device_count()))
    return (*cuda, describe_device(torch.device("cpu")))


def describe_device(device: torch.device) -> DeviceInfo:
    """What `device` is and how much memory it has."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        properties = torch.cuda.get_device_properties(device)
        description = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
        return DeviceInfo(
            name=str(device), description=description, total_bytes=total, free_bytes=free
        )
    total, free = cpu_memory()
    description = f"{platform.machine()}, {torch.get_num_threads()} torch threads"
    return DeviceInfo(name="cpu", description=description, total_bytes=total, free_bytes=free)


def cpu_memory() -> tuple[int, int]:
    """(total, available) bytes for this process on the CPU."""
    total, available = _machine_memory()
    limit = _first_number("memory.max", "memory/memory.limit_in_bytes")
    used = _first_number("memory.current", "memory/memory.usage_in_bytes")
    if limit is None or limit >= total:
        return total, available
    held = (used or 0) - _reclaimable()
    return limit, min(available, max(0, limit - held))


def check_fits(device: torch.device, need_bytes: int, what: str) -> None:
    """Refuse what can not fit before anything is allocated.

    Raises:
        ResourceError: `what` needs more than is free on the device; says both numbers.
    """
    free = describe_device(device).free_bytes
    if need_bytes > free:
        raise ResourceError(
            f"{what} needs {format_bytes(need_bytes)} on {device}; {format_bytes(free)} is free"
        )


def format_bytes(num_bytes: float) -> str:
    """`3.2 GiB`, `640 MiB`, `12 kiB`."""
    for unit in ("B", "kiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def _machine_memory() -> tuple[int, int]:
    fields: dict[str, int] = {}
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(":")
            fields[key] = int(value.split()[0]) * 1024
        return fields["MemTotal"], fields["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise ResourceError(
            f"can not read this machine's memory from /proc/meminfo: {error}"
        ) from error


def _reclaimable() -> int:
    """Bytes of files that the control group has in memory and gives up when it needs the room, such
    as those of a checkpoint that was just copied; `memory.current` counts them as used.
    """
    for name in ("memory.stat", "memory/memory.stat"):
        try:
            lines = (_CGROUP / name).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        fields = dict(line.split() for line in lines)
        return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
    return 0


def _first_number(*names: str) -> int | None:
    for name in names:
        try:
            return int((_CGROUP / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
    return None
