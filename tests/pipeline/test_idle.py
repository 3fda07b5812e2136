"""A user who does not answer: the model speaks up once, and again after its next reply."""

from __future__ import annotations

from dataclasses import replace

from fake_session import TURNS, UTTERANCE, Session, config, loud, quiet, session, settle

from pipeline import events
from pipeline.session_config import TurnDetection

IDLE: TurnDetection = replace(TURNS, idle_timeout_ms=5_000)
REPLY_S = 8 * 0.08
TURN = ["Committed", "ItemAdded", "ItemDone", "ResponseStarted"]


async def answer(s: Session) -> None:
    await s.say(UTTERANCE)
    await settle()
    assert s.all(events.ResponseFinished)
    s.forget()


async def test_fires_once_after_the_reply_was_heard_and_arms_again() -> None:
    async with session(settings=config(IDLE)) as s:
        await answer(s)
        await s.clock.advance(5.0 + REPLY_S - 0.1)
        assert s.names() == []
        await s.clock.advance(0.2)
        assert s.names()[:5] == ["TimeoutTriggered", *TURN]
        fired, committed = s.one(events.TimeoutTriggered), s.one(events.Committed)
        assert fired.item_id == committed.item_id
        assert 0 <= fired.audio_start_ms < fired.audio_end_ms
        assert s.engine.context.story[2] == "user: <0.100 s>"
        s.forget()
        await s.clock.advance(5.0 + REPLY_S + 0.1)
        assert len(s.all(events.TimeoutTriggered)) == 1


async def test_speech_calls_it_off() -> None:
    async with session(settings=config(IDLE)) as s:
        await answer(s)
        await s.clock.advance(4.0 + REPLY_S)
        await s.say(loud(6))
        await s.clock.advance(3.0)
        assert s.all(events.TimeoutTriggered) == []
        await s.say(quiet(12))


async def test_never_before_the_first_reply_and_never_where_it_is_off() -> None:
    async with session(settings=config(IDLE)) as s:
        await s.clock.advance(60.0)
        assert s.names() == []
    async with session() as s:
        await answer(s)
        await s.clock.advance(60.0)
        assert s.names() == []


async def test_counts_from_the_end_of_a_paced_output() -> None:
    async with session(settings=config(IDLE), has_playout=True) as s:
        await s.say(UTTERANCE)
        await s.clock.advance(20.0)
        assert s.all(events.TimeoutTriggered) == []
        assert s.playout is not None
        while not s.all(events.OutputStopped):
            s.playout.read(4800)
            await settle()
        await s.clock.advance(4.9)
        assert s.all(events.TimeoutTriggered) == []
        await s.clock.advance(0.2)
        assert len(s.all(events.TimeoutTriggered)) == 1


async def test_what_is_no_speech_teaches_nothing_about_the_voice() -> None:
    settings = replace(IDLE, judges_interruptions=True, prefix_padding_ms=300)
    async with session(settings=config(settings)) as s:
        await answer(s)
        usual_db = s.conversation._turns._level.usual_db
        await s.clock.advance(5.0 + REPLY_S + 0.1)
        assert s.all(events.TimeoutTriggered)
        await s.say(quiet(20))
        s.conversation.commit()
        assert s.conversation._turns._level.usual_db == usual_db
