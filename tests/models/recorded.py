"""What a CUDA graph would refuse or get wrong, found on a CPU.

`Recorder` stands for the capture: it runs the step once and keeps every operation with its shapes
and its numbers. Each replay runs the step again and must do exactly the same: a number that the
host counts, a shape that grows or a branch that turns would be frozen in a graph, and differs here.
Reading a value back fails at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.graphs import Step

READS = ("_local_scalar_dense", "nonzero", "_to_copy.to_host", "equal", "masked_select", "unique")


class HostReadError(AssertionError):
    """A step made the host wait for the device."""


class Watch(TorchDispatchMode):
    """Notes operations; refuses those that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(func)
        if any(read in name for read in READS):
            raise HostReadError(name)
        self.operations.append((name, *map(_shown, _flat((args, kwargs or {})))))
        return func(*args, **(kwargs or {}))


class Recorder:
    """A capture for tests."""

    def __init__(self) -> None:
        self.num_replays = 0

    def __call__(self, step: Step) -> Step:
        step()  # the warm-up
        first = _watched(step)

        def replay() -> None:
            self.num_replays += 1
            again = _watched(step)
            assert len(first) == len(again)
            for before, now in zip(first, again, strict=True):
                assert before == now

        return replay


def _watched(step: Callable[[], None]) -> list[tuple[Any, ...]]:
    with Watch() as watch:
        step()
    return watch.operations


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = [part for _, part in sorted(value.items())]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _flat(part)]
    return [value]


def _shown(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return (leaf.dtype, tuple(leaf.shape), leaf.stride())
    return leaf
