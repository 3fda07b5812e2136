"""Words that an engine reads while they are spoken: what they change, and that nobody waits."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import TURNS, Session, config, loud, quiet, session, settle
from scripted_judges import judges

from pipeline.barge_in import BargeIn
from pipeline.messages import Reading

JUDGED = dataclasses.replace(TURNS, eagerness="auto", tentative_ms=96, judges_interruptions=True)
SAID = np.concatenate([quiet(4), loud(10)])


def reading(end: float) -> Reading:
    """Words that the scripted judges find so likely to be a whole turn, or an interruption."""
    return Reading(**dict.fromkeys(Reading.__dataclass_fields__, 0.0) | {"end": end})


async def silence_until_the_end(s: Session) -> int:
    """Windows behind what was said."""
    for count in range(1, 60):
        await s.say(quiet(1))
        if "SpeechStopped" in s.names():
            return count
    raise AssertionError("the turn does not end")


@pytest.mark.parametrize(
    ("alone", "words", "num_windows"),
    [(0.0, None, 38), (1.0, None, 6), (0.0, 1.0, 6), (1.0, 0.0, 38)],
)
async def test_how_long_silence_lasts_follows_from_the_words_where_there_are_any(
    alone: float, words: float | None, num_windows: int
) -> None:
    async with session(settings=config(JUDGED), judges=judges(complete=[alone])) as s:
        s.engine.context.reading = None if words is None else reading(words)
        await s.say(SAID)
        assert await silence_until_the_end(s) == num_windows
        assert s.engine.context.overheard == [(3 + 10 + 3) * 512]  # once, and the whole turn


async def test_words_that_come_too_late_are_not_waited_for() -> None:
    async with session(settings=config(JUDGED), judges=judges(complete=[1.0])) as s:
        s.engine.context.is_slow_reader = True
        s.engine.context.reading = reading(0.0)
        await s.say(SAID)
        assert await silence_until_the_end(s) == 6


@pytest.mark.parametrize("words", [0.0, 1.0])
async def test_words_say_whether_a_reply_is_interrupted(words: float) -> None:
    engine = FakeEngine(Script(num_frames=25))
    said = judges(interruption=[0.5])
    async with session(engine=engine, settings=config(JUDGED), has_playout=True, judges=said) as s:
        s.conversation.respond()
        await settle()
        s.playout.read(480)
        s.forget()
        engine.context.reading = reading(words)
        await s.say(loud(13))  # before half a second has gone by
        assert ("SpeechStarted" in s.names()) is (words == 1.0)
        assert "begin_speech" not in engine.context.calls or words == 1.0


async def test_a_sound_that_seems_certain_waits_for_its_words() -> None:
    engine = FakeEngine(Script(num_frames=25))
    said = judges(interruption=[1.0])
    async with session(engine=engine, settings=config(JUDGED), has_playout=True, judges=said) as s:
        s.conversation.respond()
        await settle()
        s.playout.read(480)
        s.forget()
        engine.context.reading, engine.context.is_slow_reader = reading(1.0), True
        await s.say(loud(10))
        assert s.names() == []
        assert not s.playout.read(960)[480:].any()  # in silence
        await s.say(loud(6))
        assert s.names()[0] == "SpeechStarted"  # they did not come


@pytest.mark.parametrize(
    ("shares", "silence_ms", "verdict"),
    [
        ((0.9, 0.9, 0.9, 0.4), 0, "interruption"),  # the last look alone would not do
        ((0.3, 0.3, 0.3, 0.6), 0, "dismiss"),
        ((0.6, 0.3, 0.3, 0.7), 0, "dismiss"),
        ((0.7, 0.3, 0.3, 0.6), 0, "dismiss"),
        ((0.6, 0.3, 0.3, 0.8), 0, "interruption"),
        ((0.8, 0.3, 0.3, 0.6), 0, "dismiss"),  # the newest look counts most
        ((0.55,) * 4, 0, "interruption"),  # who goes on for so long hardly hums
        ((0.55,) * 4, 64, "dismiss"),
        ((0.75,) * 4, 64, "interruption"),
    ],
)
def test_a_sound_that_was_read_is_judged_by_all_its_looks(
    shares: tuple[float, ...], silence_ms: int, verdict: str
) -> None:
    told = iter(shares)
    judge: Any = SimpleNamespace(kinds=lambda *_, **__: {"interruption": next(told)})
    ear: Any = SimpleNamespace(
        newest=reading(0.5), is_awaited=False, begin=lambda: None, ask=lambda pcm: None
    )
    barge_in = BargeIn(judge, ear, 0)
    pcm, ages_ms = np.zeros(0, np.float32), (192, 320, 448, 480)
    ends_ms = (*ages_ms[:3], 480 - silence_ms)  # of its speech, at each look
    made = [
        barge_in.look(pcm, end_sample=16 * age_ms, speech_end_sample=16 * end_ms, usual_db=-26.0)
        for age_ms, end_ms in zip(ages_ms, ends_ms, strict=True)
    ]
    assert made == ["hold", "open", "open", verdict]


async def test_words_are_not_asked_for_where_silence_alone_ends_a_turn() -> None:
    plain = dataclasses.replace(JUDGED, eagerness=None)
    async with session(settings=config(plain), judges=judges()) as s:
        await s.say(SAID)
        await silence_until_the_end(s)
        assert s.engine.context.overheard == []
