"""The words of a sound, read by the ear of a real checkpoint: nothing here knows what was said."""

from __future__ import annotations

import functools
from dataclasses import asdict

from pipeline import worker
from pipeline.messages import Pcm, Reading
from pipeline.worker_options import WorkerOptions

CONTEXT = 1


class Ear:
    """An engine that is asked for words only, on the caller's thread.

    Raises:
        models.errors.ModelError: the checkpoint can not be loaded.
    """

    def __init__(self, model: str) -> None:
        options = WorkerOptions(model=model, cache_folder="", device="cpu", dtype="float32")
        self._core = worker.load_core(options)
        self._core.open(CONTEXT, instructions="", voice=None)

    def read(self, pcm: Pcm) -> Reading:
        """What is said. pcm: [num_samples] float32 at 16 kHz."""
        self._core.overhear(CONTEXT, 0, pcm)
        while True:
            for event in self._core.step():
                if (reading := getattr(event, "reading", None)) is not None:
                    return Reading(**asdict(reading))


@functools.cache
def ear_of(model: str) -> Ear:
    """One for all conversations of a process."""
    return Ear(model)
