"""The judges of a session together, and which ones there are by default."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from pipeline.listening.end_of_turn import EndOfTurnJudge, ProsodyJudge, SmartTurnJudge
from pipeline.listening.interruption import InterruptionJudge, SoundJudge


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """Stateless; shared by all sessions."""

    end_of_turn: EndOfTurnJudge
    interruption: InterruptionJudge


@functools.cache
def our_judges() -> Judges:
    """Those that come with the package."""
    return Judges(end_of_turn=ProsodyJudge(), interruption=SoundJudge())


def load_judges(smart_turn: Path | None) -> Judges:
    """Ours, but with the user's Smart-Turn network for the end of turns where there is one.

    Raises:
        JudgeUnavailableError: it can not be loaded.
    """
    ours = our_judges()
    if smart_turn is None:
        return ours
    return Judges(end_of_turn=SmartTurnJudge(smart_turn), interruption=ours.interruption)
