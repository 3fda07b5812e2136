"""The words of the sound that is being judged, as the engine reads them while it is spoken.

Never waits: the owner goes by what has been answered. An engine that reads no words, or is slow,
leaves the judges with the sound alone.
"""

from __future__ import annotations

from asyncio import Future

from pipeline.log import ConversationLog
from pipeline.messages import Pcm, Reading


class Overhearing:
    """Of one sound at a time; `newest` is the last answer about it."""

    def __init__(self, log: ConversationLog) -> None:
        self._log = log
        self._waiting: Future[Reading] | None = None
        self.newest: Reading | None = None

    def begin(self, pcm: Pcm | None = None) -> None:
        """What comes now is another sound; ask what it says so far, if there is any."""
        self._waiting = self.newest = None
        if pcm is not None:
            self.ask(pcm)

    @property
    def is_awaited(self) -> bool:
        """Whether words were asked for and none have come yet."""
        return self._waiting is not None and self.newest is None

    def ask(self, pcm: Pcm) -> None:
        """Ask what the sound says so far, unless an answer is still awaited."""
        self.take()
        if self._waiting is None:
            self._waiting = self._log.overhear(pcm)

    def take(self) -> Reading | None:
        """An answer that has come; each once."""
        if self._waiting is None or not self._waiting.done():
            return None
        answer, self._waiting = self._waiting, None
        if answer.cancelled():
            return None
        self.newest = answer.result()
        return self.newest
