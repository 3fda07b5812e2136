"""What an ended session leaves in reference cycles, freed soon after it.

A peer connection is one large cycle, and its codecs hold native threads and buffers that Python's
collector knows nothing of: by its own count of objects it would come for them after dozens of
sessions. What was loaded at the start is put aside first, so that a collection takes milliseconds.
"""

from __future__ import annotations

import asyncio
import gc

DELAY_S = 2.0  # a connection says good-bye for a while


def put_aside() -> None:
    """Everything that lives now is there to stay: no later collection walks over it."""
    gc.collect()
    gc.freeze()


class Collector:
    """Collects in DELAY_S, once for all sessions that end until then."""

    def __init__(self) -> None:
        self._is_due = False

    def collect_soon(self) -> None:
        """A session has ended."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(DELAY_S, self._collect)

    def _collect(self) -> None:
        self._is_due = False
        gc.collect()
