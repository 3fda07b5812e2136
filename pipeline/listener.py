"""Who is told of the user's turns, as `pipeline.user_turns` sees him."""

from __future__ import annotations

from typing import Protocol

from pipeline.events import Doubt
from pipeline.reply import TurnEnd


class Listener(Protocol):
    """Who is told of the turns."""

    @property
    def is_echoing(self) -> bool:
        """Whether the session's own voice may be in the microphone now."""

    def speech_started(self) -> bool:
        """A turn began (its event is out). Returns whether that interrupted a reply."""

    def output_doubted(self, doubt: Doubt) -> None:
        """What to do with the reply that is heard while it is not clear whether it is
        interrupted.
        """

    def turn_may_end(self) -> None:
        """A detected turn is tentatively over."""

    def turn_ended(self, turn_end: TurnEnd) -> None:
        """A detected turn became an item (its events are out)."""
