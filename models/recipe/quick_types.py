"""In which type a CPU multiplies quickly, for training."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor

SIZE = 256
TRIES = 3
MARGIN = 1.3  # a busy machine must not choose by chance


def quick_types() -> torch.autocast:
    """A context in which products are of bfloat16, where this machine is quick at that."""
    return torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16_quick())


@cache
def is_bfloat16_quick() -> bool:
    """Whether bfloat16 is multiplied clearly sooner than float32: with AMX it is several times as
    quick, without AVX-512 forty to two hundred times as slow. Measured once.
    """
    numbers = torch.ones(SIZE, SIZE)
    return MARGIN * _seconds(numbers.bfloat16()) < _seconds(numbers)


def _seconds(numbers: Tensor) -> float:
    """Of one product, the best of some tries."""
    found = []
    for _ in range(TRIES):
        began = time.perf_counter()
        torch.mm(numbers, numbers)
        found.append(time.perf_counter() - began)
    return min(found)
