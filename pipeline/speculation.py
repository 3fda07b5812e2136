"""A reply that was begun at the tentative end of a turn, and that nobody hears before the end is
sure.

The engine holds it back. Taking it back leaves the engine's log as it was at the tentative end,
with the speech open again.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.engine_port import Context, Response
from pipeline.messages import ResponseOptions
from pipeline.speech import OpenSpeech

OnRetracted = Callable[[Response], None]


class Speculation:
    """See the module's docstring. Closes the speech in the engine's log, which must be streaming.

    `is_turn_over`: the speech became an item meanwhile, the reply alone may still be taken back.
    """

    def __init__(self, context: Context, speech: OpenSpeech, options: ResponseOptions) -> None:
        self.options = options
        self.is_turn_over = False
        self._context = context
        self._mark = context.mark()
        speech.end()
        self.response = context.respond(options, speculative=True)

    def take_back(self) -> None:
        """It shall never have been."""
        self.response.cancel()
        if not self.is_turn_over:
            self._context.rollback(self._mark)

    def confirm(self) -> Response:
        """It is the reply."""
        self.response.confirm()
        return self.response
