"""Which engine a worker runs, and on what: plain data that crosses to the child as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What may be chosen about an engine and its process.

    `model`: a folder, a hub id, or "tiny" (a small random checkpoint, made below `cache_folder`
    when it is not there). `devices`: of the model's stages that do not lie on `device`.
    `num_threads`: of torch; two on a busy machine are 10-50 times slower than one. `stuck_after_s`:
    a process whose engine does nothing else for so long is ended; 0: never. `core`: a seam for
    tests, "FILE.py:FACTORY" of an engine instead of the real one.
    """

    model: str
    cache_folder: str
    device: str = "auto"
    dtype: str = "auto"
    experts: str = "full"
    devices: Mapping[str, str] = field(default_factory=dict)
    num_threads: int = 1
    stuck_after_s: float = 0.0
    core: str | None = None
