"""Steps captured as CUDA graphs, by batch size.

A step is a function of no arguments that reads and writes static tensors only. Captured, it costs
one launch instead of hundreds. `Capture` is the seam: CUDA's here, none on a CPU, and one that
records and compares in tests. A step is run for warm-up before it is captured, so it must be
harmless on what the static tensors hold then: its rows name the slot that belongs to nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from models.errors import ResourceError

Step = Callable[[], None]
Capture = Callable[[Step], Step]
WARM_UPS = 2  # the first compiles kernels, the second takes the memory that a library keeps
BUCKETS = (1, 2, 4, 8, 16, 32)

Built = TypeVar("Built")


def sizes_for(max_rows: int) -> tuple[int, ...]:
    """The batch sizes that serve up to `max_rows` rows."""
    return BUCKETS[: bisect_left(BUCKETS, max_rows) + 1]


def plain(step: Step) -> Step:
    """No graph: the step runs as it is."""
    return step


class CudaCapture:
    """Captures steps of one device; their temporary memory is one pool, as they never overlap."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> Step:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            step()
        return graph.replay


def pick_capture(device: torch.device, name: str = "auto") -> Capture:
    """`on`, `off`, or `auto`: on where the device is a GPU.

    Raises:
        ResourceError: an unknown name, or graphs asked for on a CPU.
    """
    if name == "off" or (name == "auto" and device.type != "cuda"):
        return plain
    if name not in ("auto", "on"):
        raise ResourceError(f"unknown graphs {name!r}; say auto, on or off")
    if device.type != "cuda":
        raise ResourceError(f"graphs need a GPU, not {device}")
    return CudaCapture(device)


class Buckets(Generic[Built]):
    """Steps for some batch sizes, each built at its first use.

    Args:
        build: makes the step for a batch size.
        sizes: in rising order.
    """

    def __init__(self, build: Callable[[int], Built], sizes: Sequence[int] = BUCKETS) -> None:
        self._build = build
        self._sizes = tuple(sizes)
        self._built: dict[int, Built] = {}

    @property
    def largest(self) -> int:
        """Rows that one step can take."""
        return self._sizes[-1]

    def build_all(self) -> None:
        """Build the steps of all sizes; the largest first, as its temporary memory serves all."""
        for size in reversed(self._sizes):
            self.of(size)

    def of(self, num_rows: int) -> Built:
        """The step of the least size that takes `num_rows`."""
        assert 1 <= num_rows <= self.largest, f"{num_rows} rows; a step takes 1 to {self.largest}"
        size = self._sizes[bisect_left(self._sizes, num_rows)]
        if size not in self._built:
            self._built[size] = self._build(size)
        return self._built[size]
