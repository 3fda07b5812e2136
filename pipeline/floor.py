"""Who has the floor: what the user's turns lead to, and which reply answers which of them."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.events import Doubt, Emit, OutputDoubted
from pipeline.log import ConversationLog
from pipeline.playout import Playout
from pipeline.replies import Replies
from pipeline.reply import TurnEnd
from pipeline.session_config import SessionConfig


class Floor:
    """Listens to the user's turns (`listener.Listener`): starts, delays and interrupts replies.

    Args:
        config: the session's configuration in force.
        start: begins a reply to a turn that is over.
        emit: tells who plays replies by himself what to do with them.
    """

    def __init__(
        self,
        log: ConversationLog,
        replies: Replies,
        playout: Playout | None,
        *,
        config: Callable[[], SessionConfig],
        start: Callable[[TurnEnd], None],
        emit: Emit,
    ) -> None:
        self.manual_turn: TurnEnd | None = None  # over, and the owner has to ask for a reply
        self._waiting_turn: TurnEnd | None = None  # ended during a reply, gets its own behind it
        self._log = log
        self._replies = replies
        self._playout = playout
        self._config = config
        self._start = start
        self._emit = emit

    def reply_settled(self) -> None:
        """A turn that ended during the reply gets its own now."""
        waiting, self._waiting_turn = self._waiting_turn, None
        if waiting is not None:
            self._start(waiting)

    def forget_waiting(self) -> None:
        """Nothing follows the present reply by itself."""
        self._waiting_turn = None

    # ------------------------------------------------------------------ see listener.Listener
    @property
    def is_echoing(self) -> bool:
        """See `listener.Listener`."""
        return self._replies.is_audible

    def speech_started(self) -> bool:
        """See `listener.Listener`."""
        settings = self._config().turn_detection
        self.manual_turn = None
        if settings is None or not settings.interrupt_response:
            return False
        self._waiting_turn = None
        return self._replies.interrupt()

    def output_doubted(self, doubt: Doubt) -> None:
        """See `listener.Listener`."""
        if self._playout is None:
            self._emit(OutputDoubted(doubt=doubt))
        elif doubt == "duck":
            self._playout.duck()
        elif doubt == "hold":
            self._playout.hold()
        else:
            self._playout.resume()

    def turn_may_end(self) -> None:
        """See `listener.Listener`."""
        settings = self._config().turn_detection
        if settings is not None and settings.create_response and self._replies.active is None:
            self._log.speculate(self._config().response_options())

    def turn_ended(self, turn_end: TurnEnd) -> None:
        """See `listener.Listener`."""
        settings = self._config().turn_detection
        if settings is None or not settings.create_response:
            self.manual_turn = turn_end
        elif self._replies.active is not None:
            self._waiting_turn = turn_end
        else:
            self._start(turn_end)
