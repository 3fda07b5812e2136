"""Where the milliseconds of a turn went, as the extension event and the log tell it."""

from __future__ import annotations

import logging

from daemon.protocol import server_events as ev
from pipeline import events

log = logging.getLogger(__name__)


def metrics_event(event: events.TurnMetrics) -> ev.Metrics:
    """The wire's form of a turn's timings, which are also logged."""
    engine = event.engine
    stages = ev.StagesView(
        turn_end=_rounded(event.turn_end_ms),
        encoder_tail=_rounded(engine.encoder_tail),
        prefill=_rounded(engine.prefill),
        first_text=_rounded(engine.first_text),
        first_codec=_rounded(engine.first_codec),
        first_pcm=_rounded(engine.first_pcm),
    )
    first_audio_ms = _rounded(event.first_audio_ms)
    told = " ".join(f"{name}_ms={value}" for name, value in stages.model_dump().items())
    log.info("turn response=%s first_audio_ms=%s %s", event.response_id, first_audio_ms, told)
    return ev.Metrics(
        response_id=event.response_id,
        stages_ms=stages,
        first_audio_ms=first_audio_ms,
        prefill_tokens_left=engine.tokens_left,
        num_underruns=event.num_underruns,
    )


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 1)
