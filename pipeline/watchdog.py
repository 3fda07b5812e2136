"""Ends an engine process that is stuck: a step that never returns can not be told to stop.

The timer is the interpreter's own (`faulthandler`): it needs no Python thread to run, so it also
fires while native code holds the interpreter. The stack of every thread goes to the log; the
parent sees the process end, fails what waited for it and starts another.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable

CHECKS = 8  # the timer is wound up so often within its time, not at every step


class Watchdog:
    """A timer of this process, of which there is one.

    Args:
        limit_s: the process ends when it has been neither `alive` nor at `rest` for so long.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._wound_up_s: float | None = None

    def alive(self) -> None:
        """Work goes on; the next call or `rest` is due within the limit."""
        now_s = self._clock()
        if self._wound_up_s is None or now_s - self._wound_up_s >= self._limit_s / CHECKS:
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=2)
            self._wound_up_s = now_s

    def rest(self) -> None:
        """There is nothing to do: waiting may take as long as it likes. Idempotent."""
        if self._wound_up_s is not None:
            faulthandler.cancel_dump_traceback_later()
            self._wound_up_s = None
