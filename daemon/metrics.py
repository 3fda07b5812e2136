"""What an operator sees: counters and latencies for Prometheus, in a registry of our own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.events import Speculated, TurnMetrics
from pipeline.jitter import JitterCounts

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sessions = Gauge(
            "omnid_sessions", "Sessions that are open.", ["transport"], registry=registry
        )
        self.sessions_total = Counter(
            "omnid_sessions_started", "Sessions ever begun.", ["transport"], registry=registry
        )
        self.refused = Counter(
            "omnid_sessions_refused", "Sessions refused.", ["reason"], registry=registry
        )
        self.responses = Counter(
            "omnid_responses", "Replies by how they ended.", ["status"], registry=registry
        )
        self.errors = Counter(
            "omnid_client_errors", "Error events sent, by code.", ["code"], registry=registry
        )
        self.dropped = Counter(
            "omnid_dropped",
            "What had to be thrown away: microphone samples, video frames, slow clients.",
            ["what"],
            registry=registry,
        )
        self.packets = Counter(
            "omnid_microphone_packets",
            "Audio packets: played, lost, late (their place was concealed already), doubled.",
            ["fate"],
            registry=registry,
        )
        self.frame_age = Histogram(
            "omnid_camera_frame_age_seconds",
            "How long ago the camera saw what speech took along as a frame.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.underruns = Counter(
            "omnid_playout_underruns", "Gaps inside spoken replies.", registry=registry
        )
        self.stages = Histogram(
            "omnid_turn_stage_seconds",
            "Time to the end of each stage, counted from the end of speech (turn_end) "
            "or from the start of the reply (the others).",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_audio = Histogram(
            "omnid_first_audio_seconds",
            "End of the user's speech to the first reply audio handed to the transport.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.speculations = Counter(
            "omnid_speculations",
            "Replies begun before the turn was surely over, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.wasted = Counter(
            "omnid_speculation_wasted_tokens",
            "What speculative replies made in vain: text tokens, codec frames.",
            ["kind"],
            registry=registry,
        )
        self.engine_ready = Gauge(
            "omnid_engine_ready", "1 while the engine can answer.", registry=registry
        )

        self.tasks = Gauge(
            "omnid_tasks", "asyncio tasks; without sessions always the same few.", registry=registry
        )

    def count_packets(self, counts: JitterCounts) -> None:
        """Add what became of a call's audio packets."""
        for fate in ("played", "lost", "late", "doubled"):
            self.packets.labels(fate).inc(getattr(counts, fate))

    def observe_turn(self, turn: TurnMetrics) -> None:
        """Take in where one turn's time went."""
        stages = {
            "turn_end": turn.turn_end_ms,
            "encoder_tail": turn.engine.encoder_tail,
            "prefill": turn.engine.prefill,
            "first_text": turn.engine.first_text,
            "first_codec": turn.engine.first_codec,
            "first_pcm": turn.engine.first_pcm,
        }
        for stage, value_ms in stages.items():
            if value_ms is not None:
                self.stages.labels(stage).observe(value_ms / 1000)
        if turn.first_audio_ms is not None:
            self.first_audio.observe(turn.first_audio_ms / 1000)
        self.underruns.inc(turn.num_underruns)

    def observe_speculation(self, event: Speculated) -> None:
        """Take in what became of a speculative reply."""
        self.speculations.labels("kept" if event.is_kept else "wasted").inc()
        self.wasted.labels("text").inc(event.text_tokens)
        self.wasted.labels("audio").inc(event.audio_tokens)

    def render(self) -> bytes:
        """The text that a scraper reads."""
        return generate_latest(self.registry)
