"""What a server holds of its machine, read from outside: memory, threads, descriptors, tasks.

Memory, threads and descriptors are the process's and its children's, from `/proc` (Linux); tasks
are told by the server's `/metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from clients.bench.errors import BenchError

_PROC = Path("/proc")

# What may differ between two quiet moments of a sound server: allocators keep some memory back, a
# pool of threads fills up to its size, a late connection of a scraper is still open.
MAX_MEMORY_GROWTH = 0.10
MIN_MEMORY_ALLOWED_MIB = 48.0
MAX_MORE = {"num_threads": 8, "num_fds": 6, "num_tasks": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One look. `memory_mib` is resident; processes' shared pages count for each."""

    memory_mib: float
    num_processes: int
    num_threads: int
    num_fds: int
    num_tasks: int

    def as_json(self) -> dict[str, float]:
        """For reports."""
        return asdict(self)


def growth(before: Footprint, after: Footprint) -> list[str]:
    """What grew more than a sound server's would, in words."""
    found = []
    allowed_mib = max(before.memory_mib * MAX_MEMORY_GROWTH, MIN_MEMORY_ALLOWED_MIB)
    if after.memory_mib - before.memory_mib > allowed_mib:
        found.append(f"memory: {before.memory_mib:.0f} -> {after.memory_mib:.0f} MiB")
    if after.num_processes > before.num_processes:
        found.append(f"processes: {before.num_processes} -> {after.num_processes}")
    for name, most in MAX_MORE.items():
        old, new = getattr(before, name), getattr(after, name)
        if new - old > most:
            found.append(f"{name.removeprefix('num_')}: {old} -> {new}")
    return found


def look(pid: int, metrics: str) -> Footprint:
    """The footprint of a process and its children.

    Raises:
        BenchError: there is no such process, or no /proc.
    """
    family = _family(pid)
    if not family:
        raise BenchError(f"no process {pid} in {_PROC}")
    states = [_status(each) for each in family]
    return Footprint(
        memory_mib=sum(int(state.get("VmRSS", "0 kB").split()[0]) for state in states) / 1024,
        num_processes=len(family),
        num_threads=sum(int(state.get("Threads", "0")) for state in states),
        num_fds=sum(_num_fds(each) for each in family),
        num_tasks=int(gauge(metrics, "omnid_tasks")),
    )


def gauge(metrics: str, name: str) -> float:
    """The sum of a gauge over its labels; 0 where there is none."""
    lines = [line.rpartition(" ") for line in metrics.splitlines()]
    return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name)


def _family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    parents: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        state = _status(int(folder.name))
        if "PPid" in state:
            parents[int(folder.name)] = int(state["PPid"])
    family = [pid] if pid in parents else []
    for member in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _status(pid: int) -> Mapping[str, str]:
    try:
        text = (_PROC / str(pid) / "status").read_text()
    except OSError:  # it has just ended
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _num_fds(pid: int) -> int:
    try:
        return sum(1 for _ in (_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return 0
