"""A queue between a socket and a session, bounded by bytes.

Rule when full: the reading side waits (`put`), the writing side is told (`try_put` is False) and
    gives the peer up.
"""

from __future__ import annotations

import asyncio
from collections import deque

NUM_ANSWERS = 2  # of the longest events to what is obeyed: an item, added and done
STALLED_S = 5.0  # that a peer with much to read may read nothing of it


class ByteQueue:
    """Messages in order; one producer, one consumer, one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._messages: deque[str | bytes] = deque()
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closed = False

    @property
    def num_bytes(self) -> int:
        """What is waiting."""
        return self._num_bytes

    def allow(self, num_bytes: int) -> None:
        """Let so many bytes more wait."""
        self._max_bytes += num_bytes

    def try_put(self, message: str | bytes) -> bool:
        """Queue a message at once; False if it would not fit (it is then not queued) or all is
        over.
        """
        size = len(message)
        if self._is_closed or (self._messages and self._num_bytes + size > self._max_bytes):
            return False
        self._messages.append(message)
        self._num_bytes += size
        self._has_some.set()
        if self._num_bytes >= self._max_bytes:
            self._has_room.clear()
        return True

    async def put(self, message: str | bytes) -> None:
        """Queue a message, waiting for room. Safe to cancel: the message is then not queued."""
        while not self.try_put(message):
            if self._is_closed:
                return
            self._has_room.clear()
            await self._has_room.wait()

    async def until_room(self, num_bytes: int) -> bool:
        """Wait until so many bytes would fit (or half of all, where that is less), or all is over.
        Safe to cancel. False: for `STALLED_S` nothing at all was taken.
        """
        wanted = max(0, self._max_bytes - num_bytes, self._max_bytes // 2)
        while self._num_bytes > wanted and not self._is_closed:
            self._has_room.clear()
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._has_room.wait()
            except TimeoutError:
                return False
        return True

    async def get(self) -> str | bytes | None:
        """The next message, or None once closed and empty. Safe to cancel: nothing is lost."""
        while not self._messages:
            if self._is_closed:
                return None
            self._has_some.clear()
            await self._has_some.wait()
        message = self._messages.popleft()
        self._num_bytes -= len(message)
        self._has_room.set()
        return message

    def close(self) -> None:
        """No more messages come; waiting ones can still be taken."""
        self._is_closed = True
        self._has_some.set()
        self._has_room.set()
