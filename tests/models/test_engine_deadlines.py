"""The engine keeps its listeners' deadlines, by a clock that the test turns."""

from __future__ import annotations

import pytest
from engine_rig import Rig, load_for_engine
from oracle import Oracle
from test_engine import opened, user

from models.content import AudioEvent, ReplyOptions, Text
from models.deadlines import LATE_FRAMES_SEEN, MIN_CHUNK_TOKENS, MIN_SPEAKING
from models.encoding import WindowPolicy
from models.errors import OverloadedError
from models.qwen3_omni.model import Qwen3Omni

SPOKEN = ReplyOptions(greedy=True, max_tokens=8)


class TurnedClock:
    """Stands until it is turned."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def rig(model: Qwen3Omni, oracle: Oracle, clock: TurnedClock) -> Rig:
    return Rig(model, oracle, frames=8, windows=WindowPolicy(), clock=clock)


def begin(rig: Rig, context: int) -> None:
    """A spoken reply up to its first frame."""
    opened(rig, context).engine.append_message(context, user(Text(text="1000 1001")))
    rig.engine.respond(context, context, SPOKEN)
    while not any(isinstance(event, AudioEvent) for event in rig.step()):
        pass


def test_prefill_is_cut_so_that_no_frame_comes_late(
    rig: Rig, clock: TurnedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_s = 0.001
    rig.engine._work._pace.learn(100, 100 * token_s)
    monkeypatch.setattr(
        rig.engine._work._pace, "learn", lambda *_: None
    )  # the clock stands meanwhile
    begin(rig, 1)
    opened(rig, 2)
    rig.engine.append_message(2, user(Text(text=" ".join(["1000"] * 400))))
    cache, chunks = rig.engine._contexts[2].thinker_cache, []
    while rig.engine.has_work:
        before = cache.length
        rig.step()
        if cache.length > before:
            chunks.append(cache.length - before)
            clock.now_s += token_s * chunks[-1]
    reply = rig.replies[1]
    assert reply.end is not None
    assert reply.end.stages.late_frames == 0
    assert sum(chunks) > 400
    assert min(chunks[:-1]) >= MIN_CHUNK_TOKENS
    assert chunks[0] < 240  # no more than three frames last


def test_late_frames_are_reported(rig: Rig, clock: TurnedClock) -> None:
    begin(rig, 1)
    clock.now_s += 1.0
    rig.drain()
    end = rig.replies[1].end
    assert end is not None
    assert end.stages.late_frames == 1


def test_held_speech_is_not_late_before_it_is_confirmed(rig: Rig, clock: TurnedClock) -> None:
    opened(rig).engine.append_message(1, user(Text(text="1000 1001")))
    rig.engine.respond(1, 1, SPOKEN, speculative=True)
    rig.drain()
    clock.now_s += 10.0
    rig.engine.confirm(1)
    rig.drain()
    end = rig.replies[1].end
    assert end is not None
    assert end.stages.late_frames == 0


def test_a_session_more_is_refused_with_its_reason(rig: Rig) -> None:
    for context in range(1, MIN_SPEAKING + 1):
        begin(rig, context)
    for _ in range(LATE_FRAMES_SEEN):
        rig.engine._admission.note(is_late=True)
    with pytest.raises(OverloadedError, match="at its limit: 4 sessions"):
        opened(rig, 9)
    rig.drain()
    opened(rig, 9)
