"""What a context asks its engine about sounds: of several questions the newest one counts."""

from __future__ import annotations

import asyncio

from pipeline.messages import Overheard, Reading


class Questions:
    """Of one context. A question that is not answered yet is dropped for the next."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: asyncio.Future[Reading] | None = None

    def ask(self) -> tuple[int, asyncio.Future[Reading]]:
        """A question's number, and what its answer will be in."""
        self.drop()
        self._number += 1
        self._waiting = asyncio.get_running_loop().create_future()
        return self._number, self._waiting

    def answer(self, overheard: Overheard) -> None:
        """Take in an answer; one to an older question is not."""
        if self._waiting is not None and overheard.query == self._number:
            self._waiting.set_result(overheard.reading)
            self._waiting = None

    def drop(self) -> None:
        """There will be no answer."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
