"""An engine that is at its limit refuses a context: the session says so, and tries again."""

from __future__ import annotations

from fake_engine import FakeEngine
from fake_session import UTTERANCE, quiet, session, settle

from pipeline import events
from pipeline.items import Item, TextContent

SAID = "assistant: One two three four"


def full() -> FakeEngine:
    engine = FakeEngine()
    engine.is_full = True
    return engine


async def test_a_session_that_began_under_overload_recovers_by_itself() -> None:
    engine = full()
    async with session(engine=engine) as s:
        await s.clock.advance(2)
        assert len(engine.contexts) == 1, "nobody needs it"
        engine.is_full = False
        await s.say(UTTERANCE)
        assert s.one(events.ResponseFinished).status == "completed"
        assert engine.context.story == ["user: <0.608 s>", SAID]
        assert len(engine.contexts) == 2


async def test_meanwhile_each_reply_fails_and_says_by_what() -> None:
    engine = full()
    async with session(engine=engine) as s:
        for number in range(2):
            await s.clock.advance(2)
            s.forget()
            await s.say(UTTERANCE)
            await s.clock.advance(2)
            finished = s.one(events.ResponseFinished)
            assert (finished.status, finished.refusal) == ("failed", "overloaded"), number
            assert finished.error == "the engine is at its limit"
        engine.is_full = False
        await s.clock.advance(2)
        s.forget()
        s.conversation.respond()
        await settle()
        assert s.one(events.ResponseFinished).status == "completed"
        assert engine.context.story == ["user: <0.608 s>", "user: <0.608 s>", SAID]
        assert "Failed" not in s.names()


async def test_an_item_is_reason_enough() -> None:
    engine = full()
    async with session(engine=engine) as s:
        await s.clock.advance(2)
        engine.is_full = False
        s.conversation.create_item(Item(id="t", role="user", content=[TextContent(text="well?")]))
        await settle()
        assert engine.context.story == ["user: well?"]


async def test_a_full_engine_is_not_asked_all_the_time() -> None:
    """Each time it would be told the whole conversation."""
    engine = full()
    async with session(engine=engine) as s:
        for _ in range(20):
            await s.say(UTTERANCE)
            await s.say(quiet(3))
            await s.clock.advance(0.1)
        assert len(engine.contexts) <= 4, "once in a second, of two"


async def test_a_reply_that_finds_no_engine_after_it_was_lost_does_not_wait_for_ever() -> None:
    engine = FakeEngine()
    async with session(engine=engine) as s:
        engine.die(revives=False)
        engine.revive(failure="no such device")
        for _ in range(2):
            s.forget()
            s.conversation.respond()
            await settle()
            finished = s.one(events.ResponseFinished)
            assert (finished.status, finished.error) == ("failed", "no such device")
