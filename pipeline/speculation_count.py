"""What speculative replies were worth: how many were kept, and what the others have cost."""

from __future__ import annotations

from pipeline import events
from pipeline.engine_port import Response
from pipeline.errors import PipelineError
from pipeline.heard import Spawn
from pipeline.messages import ResponseEnded


class SpeculationCount:
    """Tells what became of speculative replies, and what the ones in vain have cost."""

    def __init__(self, *, emit: events.Emit, spawn: Spawn) -> None:
        self._emit = emit
        self._spawn = spawn

    def retracted(self, response: Response) -> None:
        """One was in vain."""
        self._spawn(self._follow(response), "count what was in vain")

    def kept(self) -> None:
        """One became a reply."""
        self._emit(events.Speculated(is_kept=True, text_tokens=0, audio_tokens=0))

    async def _follow(self, response: Response) -> None:
        text_tokens = audio_tokens = 0
        try:
            async for event in response:
                if isinstance(event, ResponseEnded):
                    text_tokens = event.usage.output_text_tokens
                    audio_tokens = event.usage.output_audio_tokens
        except PipelineError:
            return  # the engine died, and with it what was in vain
        self._emit(
            events.Speculated(is_kept=False, text_tokens=text_tokens, audio_tokens=audio_tokens)
        )
