"""An engine that dies, and sessions that end: nothing said is lost, nothing started is left."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import (
    UTTERANCE,
    FakeClock,
    LoudnessVad,
    check_nothing_left,
    config,
    loud,
    quiet,
    session,
    settle,
)

from pipeline import events
from pipeline.conversation import Conversation
from pipeline.items import Item, TextContent
from pipeline.playout import Playout

SAID = "assistant: One two three four"


async def test_death_during_a_reply_fails_it_and_the_session_goes_on() -> None:
    engine = FakeEngine(Script(holds_at=4))
    async with session(engine=engine) as s:
        await s.say(UTTERANCE)
        engine.script = Script()
        engine.die()
        await settle()
        finished = s.one(events.ResponseFinished)
        assert (finished.status, finished.error) == ("failed", "the engine died")
        assert finished.item.status == "incomplete"
        assert len(engine.contexts) == 2
        await s.clock.advance(1)
        await s.say(UTTERANCE)
        assert [e.status for e in s.all(events.ResponseFinished)] == ["failed", "completed"]
        # four frames were handed over: two words
        assert engine.context.story == [
            "user: <0.608 s>",
            "assistant: One two",
            "user: <0.608 s>",
            SAID,
        ]


async def test_death_during_speech_repeats_it_to_the_next_engine() -> None:
    engine = FakeEngine()
    async with session(engine=engine) as s:
        s.conversation.append_frame(np.zeros((4, 6, 3), np.uint8))
        await s.say(UTTERANCE)
        await s.clock.advance(1)
        s.forget()
        await s.say(np.concatenate([quiet(3), loud(20)]))
        engine.die(revives=False)
        await s.say(loud(5))
        assert len(engine.contexts) == 1
        engine.revive()
        await s.say(np.concatenate([loud(5), quiet(6)]))
        assert engine.context.story == [
            "user: <0.608 s, 2 frames>",
            SAID,
            "user: <1.248 s, 3 frames>",
            SAID,
        ]
        item = s.all(events.ItemDone)[0].item
        np.testing.assert_array_equal(engine.context.entries[2].pcm, item.content[0].pcm)
        assert "Failed" not in s.names()


async def test_a_turn_that_ends_while_no_engine_runs_is_answered_later() -> None:
    engine = FakeEngine()
    async with session(engine=engine) as s:
        engine.die(revives=False)
        await s.say(UTTERANCE)
        s.conversation.create_item(Item(id="t", role="user", content=[TextContent(text="well?")]))
        assert s.names()[-3:] == ["ResponseStarted", "ItemAdded", "ItemDone"]
        engine.revive()
        await settle()
        assert s.one(events.ResponseFinished).status == "completed"
        assert engine.context.story == ["user: <0.608 s>", "user: well?", SAID]


async def test_a_waiting_reply_can_be_cancelled() -> None:
    engine = FakeEngine()
    async with session(engine=engine) as s:
        engine.die(revives=False)
        s.conversation.respond()
        s.conversation.cancel_response()
        engine.revive()
        await settle()
        assert s.one(events.ResponseFinished).status == "cancelled"
        assert engine.responses == []


async def test_an_engine_that_is_gone_for_good() -> None:
    engine = FakeEngine()
    async with session(engine=engine) as s:
        engine.die(revives=False)
        await s.say(UTTERANCE)
        engine.revive(failure="no such device")
        await settle()
        assert s.one(events.Failed).code == "engine_lost"
        finished = s.one(events.ResponseFinished)
        assert (finished.status, finished.error) == ("failed", "no such device")


async def test_edits_and_truncation_survive_a_death() -> None:
    engine = FakeEngine()
    async with session(engine=engine) as s:
        await s.say(UTTERANCE)
        item = s.one(events.ResponseFinished).item
        engine.die()
        s.conversation.truncate_item(item.id, audio_end_ms=330)
        await settle()
        assert engine.context.story == ["user: <0.608 s>", "assistant: One two"]


# ------------------------------------------------------------------ ends
class Ending:
    """Runs a whole conversation with an interruption.

    And can be stopped after any number of loop passes.
    """

    def __init__(self) -> None:
        self.engine = FakeEngine(Script(holds_at=None))
        self.log: list[Any] = []
        self.conversation = Conversation(
            self.engine,
            config=config(),
            emit=self.log.append,
            vad=LoudnessVad(),
            clock=FakeClock(),
            playout=Playout(),
        )

    async def speak(self) -> None:
        await self.conversation.append_audio(np.tile(UTTERANCE, 2), rate_hz=16_000)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_stopped_at_every_point_nothing_is_left(is_cancelled: bool) -> None:
    for passes in range(45):
        before = asyncio.all_tasks()
        ending = Ending()
        running = asyncio.create_task(ending.conversation.run())
        speaking = asyncio.create_task(ending.speak())
        for _ in range(passes):
            await asyncio.sleep(0)
        if is_cancelled:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        else:
            await ending.conversation.aclose()
            await running
        await speaking  # input after the end is ignored
        await ending.conversation.aclose()
        check_nothing_left(ending.engine, ending.log, before)
        assert all(context.is_closed for context in ending.engine.contexts)


async def test_closed_before_it_ran() -> None:
    ending = Ending()
    await ending.conversation.aclose()
    await asyncio.wait_for(ending.conversation.run(), 1)
    assert ending.engine.contexts == []


async def test_ending_while_the_engine_still_loads() -> None:
    engine = FakeEngine()
    engine.die(revives=False)
    async with session(engine=engine) as s:
        s.conversation.respond()
        await settle()
    assert [type(e).__name__ for e in s.log] == [
        "ResponseStarted",
        "StateChanged",
        "ResponseFinished",
    ]


async def test_cancelling_an_append_leaves_the_session_usable() -> None:
    async with session() as s:
        appending = asyncio.create_task(
            s.conversation.append_audio(np.tile(UTTERANCE, 20), rate_hz=16_000)
        )
        for _ in range(10):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.gather(appending, return_exceptions=True)
        await s.say(quiet(20))
        s.forget()
        await s.say(UTTERANCE)
        assert s.names()[0] == "SpeechStarted"
        assert s.names()[-1] == "ResponseFinished"
