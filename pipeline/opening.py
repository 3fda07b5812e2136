"""Finds one session a living context: at its beginning, and when the one that it had is gone.

A context that the engine has refused, or shed, because others are served late already is asked for
again when the session needs it next (sound, an item, a reply), but at most every `RETRY_S`: each
time the engine is told the whole conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.clock import Clock
from pipeline.errors import EngineLostError
from pipeline.heard import Spawn
from pipeline.log import ConversationLog

RETRY_S = 1.0


class Opening:
    """See the module's docstring.

    Args:
        spawn: starts a named task of the session.
        on_open: called once there is a context.
        on_failed: called when there will be none.
    """

    def __init__(
        self,
        log: ConversationLog,
        *,
        clock: Clock,
        spawn: Spawn,
        on_open: Callable[[], None],
        on_failed: Callable[[EngineLostError], None],
    ) -> None:
        self._log = log
        self._clock = clock
        self._spawn = spawn
        self._on_open = on_open
        self._on_failed = on_failed
        self._is_under_way = False
        self._opened_s = clock.now_s()

    def start(self) -> None:
        """Look for a context, unless that is under way."""
        if not self._is_under_way:
            self._is_under_way = True
            self._spawn(self._open(), "open context")

    async def _open(self) -> None:
        failure = None
        try:
            while self._log.was_refused and self._clock.now_s() < self._opened_s + RETRY_S:
                await self._clock.sleep_until(self._opened_s + RETRY_S)
            await self._log.open()
        except EngineLostError as error:
            failure = error
        finally:
            self._opened_s = self._clock.now_s()
            self._is_under_way = False
        if failure is None:
            self._on_open()
        else:
            self._on_failed(failure)
