"""Batches made ahead by a process of its own, so that drawing and speaking cost a step no time."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.queues import Queue
from typing import Generic, TypeVar

Batch = TypeVar("Batch")
DEPTH = 6


class Prefetched(Generic[Batch]):
    """`make(first)`, `make(first + 1)` and so on, each ready some steps before it is asked for."""

    def __init__(self, make: Callable[[int], Batch], first: int) -> None:
        context = multiprocessing.get_context("fork")  # `make` need not be pickled
        self._queue: Queue[bytes] = context.Queue(DEPTH)
        self._process = context.Process(
            target=_work, args=(make, first, self._queue), daemon=True, name="recipe-batches"
        )
        self._process.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch; raises what `make` raised."""
        made = pickle.loads(self._queue.get())
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._queue.close()
        self._queue.cancel_join_thread()


def _work(make: Callable[[int], Batch], number: int, queue: Queue[bytes]) -> None:
    while True:
        made: Batch | Exception
        try:
            made = make(number)
        except Exception as error:  # told where the batch is asked for
            made = error
        queue.put(pickle.dumps(made))
        number += 1
