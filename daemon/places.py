"""The places of a server: how many sessions and requests there may be at once, of all and of a key.

Bounds the memory for caches. Nobody waits for a place: who gets none is told when to ask again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from daemon.auth import Refusal
from daemon.metrics import Metrics

RETRY_AFTER_S = 5


@dataclass(slots=True)
class Place:
    """One of the places for sessions, taken until released."""

    release_once: Callable[[], None]
    is_released: bool = False

    def release(self) -> None:
        """Give the place back. Idempotent."""
        if not self.is_released:
            self.is_released = True
            self.release_once()


class Readiness(Protocol):
    """Whether the engine can answer (`daemon.supervisor.EngineSupervisor`)."""

    @property
    def state(self) -> str:
        """ "loading" | "ready" | "failed" """

    @property
    def error(self) -> str | None: ...


class Places:
    """`max_taken`: of all; `max_per_key`: of each owner, 0 is no limit.

    `make_room` is asked before somebody is refused: it may end a session that nobody uses and
    release its place, of an owner or (None) of anybody.
    """

    def __init__(
        self, engine: Readiness, metrics: Metrics, *, max_taken: int, max_per_key: int
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._max_taken = max_taken
        self._max_per_key = max_per_key
        self._num_of: Counter[str] = Counter()
        self._are_free = asyncio.Event()
        self._are_free.set()
        self.are_closed = False
        self.make_room: Callable[[str | None], None] = _make_none

    def close(self) -> None:
        """From now on nobody gets one."""
        self.are_closed = True

    async def until_free(self) -> None:
        """Wait until all are given back. Cancelling is safe."""
        await self._are_free.wait()

    def check(self) -> None:
        """Whether there may be anything new at all.

        Raises:
            Refusal: 503: the engine is not ready, or the server is shutting down.
        """
        state = self._engine.state
        if self.are_closed or state != "ready":
            self._metrics.refused.labels("closing" if self.are_closed else state).inc()
            message = {
                "loading": "The model is still loading.",
                "failed": f"The model could not be loaded: {self._engine.error}",
            }.get(state, "The server is shutting down.")
            raise Refusal(503, message, "not_ready", retry_after_s=RETRY_AFTER_S)

    def take(self, transport: str, owner: str) -> Place:
        """A place for one more session or request of an owner.

        Raises:
            Refusal: 503: as `check`, or all places are taken; 429: the owner has his share.
        """
        self.check()
        if self._is_full:
            self.make_room(None)
        if self._is_full:
            self._metrics.refused.labels("full").inc()
            message = f"All {self._max_taken} places for sessions are taken."
            raise Refusal(503, message, "too_many_sessions", retry_after_s=RETRY_AFTER_S)
        if self._has_share(owner):
            self.make_room(owner)
        if self._has_share(owner):
            self._metrics.refused.labels("key").inc()
            message = f"At most {self._max_per_key} sessions of one API key at once."
            raise Refusal(429, message, "too_many_sessions", retry_after_s=RETRY_AFTER_S)
        self._num_of[owner] += 1
        self._are_free.clear()
        gauge = self._metrics.sessions.labels(transport)
        gauge.inc()
        self._metrics.sessions_total.labels(transport).inc()

        def release() -> None:
            self._num_of[owner] -= 1
            self._num_of += Counter()  # forgets those without any
            gauge.dec()
            if not self._num_of:
                self._are_free.set()

        return Place(release)

    @property
    def _is_full(self) -> bool:
        return self._num_of.total() >= self._max_taken

    def _has_share(self, owner: str) -> bool:
        return bool(self._max_per_key) and self._num_of[owner] >= self._max_per_key


def _make_none(owner: str | None) -> None:
    """Nothing can be ended."""
