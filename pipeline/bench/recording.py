"""What is known of one conversation of a made user, wherever it was held."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import events
from pipeline.bench.user import Said
from pipeline.messages import Pcm, Pcm16


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Recording:
    """All that happened, in seconds since the microphone's first sample.

    Args:
        told: session events with their time. user: 16 kHz. agent: 24 kHz, as it was heard.
        doubts: "duck", "hold" or "resume" of a reply while a sound over it was weighed, with their
            time.
        cuts: (words that were heard, words that its item holds) of each reply that was cut.
        picture_ages_s: of the pictures that replies knew.
        num_underruns: breaks in the agent's sound.
        late_s: how late the microphone was at worst, where time is real.
    """

    seed: int
    said: list[Said]
    told: list[tuple[float, events.SessionEvent]]
    user: Pcm
    agent: Pcm16
    cuts: list[tuple[int, int]]
    picture_ages_s: list[float]
    num_underruns: int
    doubts: list[tuple[float, str]] = field(default_factory=list)
    late_s: float = 0.0
