"""A conversation with fakes around it.

Clock moved by hand, loudness as voice detector, events recorded.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fake_engine import FakeEngine

from pipeline import events
from pipeline.conversation import Conversation
from pipeline.listening.judges import Judges
from pipeline.messages import Pcm
from pipeline.playout import Playout
from pipeline.session_config import SessionConfig, TurnDetection

WINDOW = 512
TURNS = TurnDetection(prefix_padding_ms=96, silence_duration_ms=192)


class FakeClock:
    """Stands still until `advance`."""

    def __init__(self) -> None:
        self._now_s = 100.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._count = itertools.count()

    def now_s(self) -> float:
        return self._now_s

    async def sleep_until(self, deadline_s: float) -> None:
        if deadline_s > self._now_s:
            event = asyncio.Event()
            heapq.heappush(self._sleepers, (deadline_s, next(self._count), event))
            await event.wait()

    async def advance(self, seconds: float) -> None:
        self._now_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now_s:
            heapq.heappop(self._sleepers)[2].set()
        await settle()


class LoudnessVad:
    """Speech is what is louder than 0.1."""

    window_samples = WINDOW

    def __init__(self) -> None:
        self.num_windows = 0

    def probability(self, window: Pcm) -> float:
        assert len(window) == WINDOW
        self.num_windows += 1
        return 1.0 if np.abs(window).max() > 0.1 else 0.0

    def reset(self) -> None:
        pass


def loud(num_windows: int) -> Pcm:
    return np.full(num_windows * WINDOW, 0.5, np.float32)


def quiet(num_windows: int) -> Pcm:
    return np.zeros(num_windows * WINDOW, np.float32)


UTTERANCE = np.concatenate([quiet(5), loud(10), quiet(8)])


async def settle() -> None:
    """Let every task come to where it waits."""
    for _ in range(60):
        await asyncio.sleep(0)


@dataclass
class Session:
    engine: FakeEngine
    clock: FakeClock
    conversation: Conversation
    playout: Playout | None
    everything: list[Any] = field(default_factory=list)
    num_forgotten: int = 0

    @property
    def log(self) -> list[Any]:
        return self.everything[self.num_forgotten :]

    async def say(self, pcm: Pcm, *, rate_hz: int = 16_000) -> None:
        await self.conversation.append_audio(pcm, rate_hz=rate_hz)
        await settle()

    def names(
        self, *, states: bool = False, deltas: bool = False, metrics: bool = False
    ) -> list[str]:
        hidden: tuple[type, ...] = ()
        hidden += () if states else (events.StateChanged,)
        hidden += () if deltas else (events.ResponseText, events.ResponseAudio)
        hidden += () if metrics else (events.TurnMetrics,)
        return [type(event).__name__ for event in self.log if not isinstance(event, hidden)]

    def all(self, kind: type) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]

    def one(self, kind: type) -> Any:
        found = self.all(kind)
        assert len(found) == 1, (kind, found)
        return found[0]

    @property
    def states(self) -> list[str]:
        return [event.state for event in self.all(events.StateChanged)]

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self.num_forgotten = len(self.everything)


def config(turns: TurnDetection | None = TURNS, **fields: Any) -> SessionConfig:
    return SessionConfig(instructions="Be brief.", turn_detection=turns, **fields)


@asynccontextmanager
async def session(
    *,
    engine: FakeEngine | None = None,
    settings: SessionConfig | None = None,
    has_playout: bool = False,
    judges: Judges | None = None,
) -> AsyncIterator[Session]:
    """A running conversation that must end without a task, a reply or a context left behind."""
    engine = engine or FakeEngine()
    clock = FakeClock()
    playout = Playout() if has_playout else None
    log: list[Any] = []
    conversation = Conversation(
        engine,
        config=settings or config(),
        emit=log.append,
        vad=LoudnessVad(),
        clock=clock,
        playout=playout,
        judges=judges,
    )
    before = asyncio.all_tasks()
    running = asyncio.create_task(conversation.run())
    await settle()
    try:
        yield Session(engine, clock, conversation, playout, log)
    finally:
        await conversation.aclose()
        await running
        check_nothing_left(engine, log, before)


def check_nothing_left(engine: FakeEngine, log: list[Any], before: set[asyncio.Task[Any]]) -> None:
    left = asyncio.all_tasks() - before
    assert not left, left
    assert all(not context.is_alive for context in engine.contexts)
    started = [event.response_id for event in log if isinstance(event, events.ResponseStarted)]
    finished = [event.response_id for event in log if isinstance(event, events.ResponseFinished)]
    assert started == finished
    assert all(response.is_ended or not response.context.is_closed for response in engine.responses)
