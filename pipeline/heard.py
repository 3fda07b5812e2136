"""What was heard of a reply: its item, the engine's log and the owner are all told the same.

The item says the estimate of `Reply.text_heard` at once, and what the engine answers as soon as it
does: that is what its log holds. A reply that the present log does not know (an engine restarted,
the history was edited) is shortened by telling the whole conversation anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pipeline import events
from pipeline.engine_port import Response
from pipeline.errors import EngineLostError
from pipeline.log import ConversationLog
from pipeline.reply import SAMPLES_PER_MS, Reply

HEARD_TIMEOUT_S = 5.0

Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class Heard:
    """See the module's docstring. `spawn` starts a named task of the session."""

    def __init__(self, log: ConversationLog, *, emit: events.Emit, spawn: Spawn) -> None:
        self._log = log
        self._emit = emit
        self._spawn = spawn

    def remember(self, reply: Reply, num_samples: int) -> None:
        """Keep what the first samples said; of a text reply all that was written.

        May be said again, more or less.
        """
        if reply.item is None and not reply.calls:
            return
        if reply.voice is None:
            self._log.rebuild()
            return
        if reply.max_heard_samples is not None:
            num_samples = min(num_samples, reply.max_heard_samples)
        reply.show_text(reply.text_heard(num_samples))
        is_known = self._log.is_open and reply.generation == self._log.generation
        if reply.response is None or not is_known or reply.calls:
            # the engine would forget the calls together with the words that were not heard
            self._log.rebuild()
            return
        told, reply.told = reply.told, (reply.generation, num_samples)
        if told != reply.told:
            self._spawn(self._tell(reply, reply.response, reply.told), f"heard {reply.id}")

    def truncate(self, reply: Reply, num_samples: int, *, audio_end_ms: int | None = None) -> None:
        """Cut the reply for good, and say so; `audio_end_ms`: the moment as the owner named it."""
        if reply.item is None:
            return
        reply.item.status = "incomplete"
        if reply.max_heard_samples is not None:
            num_samples = min(num_samples, reply.max_heard_samples)
        reply.max_heard_samples = num_samples  # what was cut does not come back
        self.remember(reply, num_samples)
        reply.cut_audio(num_samples)
        end_ms = num_samples // SAMPLES_PER_MS if audio_end_ms is None else audio_end_ms
        self._emit(events.ItemTruncated(item_id=reply.item.id, audio_end_ms=end_ms))

    async def _tell(self, reply: Reply, response: Response, told: tuple[int, int]) -> None:
        """Its answer replaces the estimate, unless something newer was said meanwhile."""
        try:
            async with asyncio.timeout(HEARD_TIMEOUT_S):
                text = await response.heard(reply.made_samples(told[1]))
        except (EngineLostError, TimeoutError):
            return  # the estimate stays: a new engine will be told that
        if reply.told == told and reply.generation == self._log.generation:
            reply.show_text(text)
