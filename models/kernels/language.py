"""Triton where it is installed, and a clear error where it is not.

The kernels' files hold their plain references, too, so they must import without Triton. Kernels are
written against the names of this file: `jit` marks one, `tl` is its language. With
TRITON_INTERPRET=1 in the environment before the first import, Triton runs them on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.errors import ResourceError

try:
    import triton
except ImportError:
    triton = None

tl: Any = None if triton is None else triton.language
HAS_TRITON = triton is not None
if TYPE_CHECKING:
    Pointer = Any  # of a kernel's argument: a tensor here, its address in the kernel
else:  # the compiler looks annotations up, and refuses what is not Triton's own
    Pointer = triton.language.pointer_type if HAS_TRITON else None


class _Absent:
    """Stands for a kernel where Triton is not installed."""

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        raise ResourceError("fused kernels need the package triton: pip install 'omnid[gpu]'")


def jit(function: Callable[..., None]) -> Any:
    """Compile `function` as a Triton kernel at its first launch."""
    return triton.jit(function) if HAS_TRITON else _Absent()


def is_interpreted() -> bool:
    """Whether kernels run on the CPU, for tests."""
    return HAS_TRITON and bool(triton.knobs.runtime.interpret)


def can_run(device: torch.device) -> bool:
    """Whether kernels run on tensors of `device`."""
    return HAS_TRITON and (device.type == "cuda" or is_interpreted())


def cdiv(count: int, block: int) -> int:
    """Blocks that cover `count`."""
    return -(-count // block)


def next_power_of_2(count: int) -> int:
    """The least power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def check_rows(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """A kernel reads by address: refuse what is not laid out as it assumes."""
    assert tensor.shape == shape, f"{name} is {tuple(tensor.shape)}, not {shape}"
    assert tensor.is_contiguous(), f"{name} is not contiguous"
