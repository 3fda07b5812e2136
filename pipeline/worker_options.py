"""Which engine a worker runs, and on what: plain data that crosses to the child as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What may be chosen about an engine and its process.

    `model`: a folder, a hub id, or "tiny" (a small random checkpoint, made below `cache_folder`
    when it is not there). `devices`: of the model's stages that do not lie on `device`.
    `graphs`: whether tokens and frames are made by graphs of fused kernels: "on", "off", or "auto":
    on a GPU. `audio_window_s`, `camera_window_s`: attention windows of the audio encoder while
    somebody speaks, alone and beside a camera; 0: the checkpoint's own. `num_threads`: of torch;
    two on a busy machine are 10-50 times slower than one. `stuck_after_s`: a process whose engine
    does nothing else for so long is ended; 0: never. `core`: a seam for tests, "FILE.py:FACTORY" of
    an engine instead of the real one.
    """

    model: str
    cache_folder: str
    device: str = "auto"
    dtype: str = "auto"
    experts: str = "full"
    devices: Mapping[str, str] = field(default_factory=dict)
    graphs: str = "auto"
    audio_window_s: int = 0
    camera_window_s: int = 2
    num_threads: int = 1
    stuck_after_s: float = 0.0
    core: str | None = None
