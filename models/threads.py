"""Threads and cores of a CPU that the engine works on."""

from __future__ import annotations

import os

import torch
from threadpoolctl import threadpool_limits


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_blas_threads() -> None:
    """As many for numpy's products as torch has: its library would take all cores for each."""
    threadpool_limits(torch.get_num_threads(), user_api="blas")
