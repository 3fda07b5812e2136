"""The only source of time in a session: a monotonic clock that can be waited on.

Media time is counted in samples and does not come from here; this clock tells how long the outside
world took (a sender that fell silent, a reply's first sample). Tests put a clock in its place that
they move by hand.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds since an arbitrary moment."""

    def now_s(self) -> float:
        """The present moment."""

    async def sleep_until(self, deadline_s: float) -> None:
        """Wait until about then; the caller looks at `now_s` again. Safe to cancel."""


class MonotonicClock:
    """The machine's monotonic clock; steps of the calendar do not move it."""

    def now_s(self) -> float:
        """The present moment."""
        return time.monotonic()

    async def sleep_until(self, deadline_s: float) -> None:
        """Wait until then (give or take a tick of the event loop's own timer)."""
        await asyncio.sleep(max(0.0, deadline_s - self.now_s()))
