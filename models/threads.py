"""Threads and cores of a CPU that the engine works on."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Made = TypeVar("Made")
Other = TypeVar("Other")


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_blas_threads() -> None:
    """As many for numpy's products as torch has: its library would take all cores for each."""
    threadpool_limits(torch.get_num_threads(), user_api="blas")


def side_by_side(first: Callable[[], Made], second: Callable[[], Other]) -> tuple[Made, Other]:
    """What two functions without gradients make, at the same time where there are cores for it.

    There is one other thread: `second` must not come back here.
    """
    if num_cores() == 1:
        return first(), second()
    made = _other_core().submit(torch.inference_mode()(second))
    try:
        mine = first()
    finally:
        other = made.result()
    return mine, other


@cache
def _other_core() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="beside")
