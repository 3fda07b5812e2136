"""What happens when nothing happens: a sender that falls silent, a user who does not answer.

Both count on the session's clock, for without sound the media clock stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.clock import Clock
from pipeline.session_config import TurnDetection

SILENT_SENDER_S = 5.0  # open speech ends when nothing at all arrives for so long


class SenderWatch:
    """Ends a turn whose sender fell silent.

    `lock` is held while sound is taken in: sound that waits to be taken in is no silence.
    """

    def __init__(self, clock: Clock) -> None:
        self.lock = asyncio.Lock()
        self._clock = clock
        self._last_s = clock.now_s()
        self._is_hearing = asyncio.Event()

    def note_sound(self) -> None:
        """Sound came, of whatever kind."""
        self._last_s = self._clock.now_s()

    def note_hearing(self, is_hearing: bool) -> None:
        """Whether a turn is open now."""
        if is_hearing:
            self._is_hearing.set()
        else:
            self._is_hearing.clear()

    async def run(self, end_turn: Callable[[], None]) -> None:
        """Watch for ever."""
        while True:
            await self._is_hearing.wait()
            deadline_s = self._last_s + SILENT_SENDER_S
            if self._clock.now_s() < deadline_s:
                await self._clock.sleep_until(deadline_s)
            elif self.lock.locked():
                async with self.lock:
                    pass
            else:
                end_turn()


class IdleWatch:
    """Calls once when an armed deadline passes without being disarmed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadline_s: float | None = None
        self._is_armed = asyncio.Event()

    def note(self, detection: TurnDetection | None, *, unheard_s: float | None) -> None:
        """The session does something else now; `unheard_s`: its reply is over, of which so much
        will still be heard (None: something else happened).
        """
        timeout_ms = detection.idle_timeout_ms if detection is not None else None
        if timeout_ms is not None and unheard_s is not None:
            self.arm(unheard_s + timeout_ms / 1000)
        else:
            self.disarm()

    def arm(self, after_s: float) -> None:
        """From now on count so many seconds."""
        self._deadline_s = self._clock.now_s() + after_s
        self._is_armed.set()

    def disarm(self) -> None:
        """Count no longer."""
        self._deadline_s = None
        self._is_armed.clear()

    async def run(self, on_idle: Callable[[], None]) -> None:
        """Watch for ever."""
        while True:
            await self._is_armed.wait()
            deadline_s = self._deadline_s
            if deadline_s is None:
                continue
            if self._clock.now_s() < deadline_s:
                await self._clock.sleep_until(deadline_s)
            else:
                self.disarm()
                on_idle()
