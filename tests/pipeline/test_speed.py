"""Speech at another speed: positions are those of the listener, the engine is told its own."""

from __future__ import annotations

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import config, session, settle

from pipeline import events
from pipeline.messages import ResponseOptions

FRAME = 1_920


@pytest.mark.parametrize("speed", [0.5, 1.0, 1.5])
async def test_a_reply_lasts_as_long_as_its_speed_says(speed: float) -> None:
    async with session(settings=config(None, speed=speed)) as s:
        s.conversation.respond()
        await settle()
        pcm = np.concatenate([event.pcm for event in s.all(events.ResponseAudio)])
        assert len(pcm) == round(8 * FRAME / speed)
        item = s.one(events.ResponseFinished).item
        assert item.content[0].num_samples == len(pcm)
        assert item.content[0].transcript == "One two three four"


async def test_what_was_heard_is_told_in_the_engines_samples() -> None:
    async with session(settings=config(None, speed=1.5)) as s:
        s.conversation.respond()
        await settle()
        item = s.one(events.ResponseFinished).item
        s.conversation.truncate_item(item.id, audio_end_ms=200)
        await settle()
        assert s.engine.response.heard_calls == [200 * 24 * 3 // 2]
        assert s.one(events.ItemTruncated).audio_end_ms == 200
        assert item.content[0].num_samples == 200 * 24


async def test_beyond_the_end_is_beyond_what_was_heard_not_what_was_made() -> None:
    async with session(settings=config(None, speed=0.5)) as s:
        s.conversation.respond()
        await settle()
        item = s.one(events.ResponseFinished).item
        s.conversation.truncate_item(item.id, audio_end_ms=2 * 8 * 80 - 10)
        assert s.one(events.ItemTruncated).item_id == item.id


async def test_the_speed_of_a_reply_stays_as_it_began() -> None:
    engine = FakeEngine(Script(holds_at=4))
    async with session(engine=engine, settings=config(None, speed=1.5)) as s:
        s.conversation.respond()
        await settle()
        s.conversation.configure(config(None, speed=1.0))
        engine.response.go_on()
        await settle()
        assert sum(len(event.pcm) for event in s.all(events.ResponseAudio)) == 8 * FRAME / 1.5


async def test_a_paced_output_plays_at_the_speed() -> None:
    async with session(settings=config(None, speed=0.8), has_playout=True) as s:
        s.conversation.respond()
        await settle()
        assert s.playout is not None
        for _ in range(60):
            s.playout.read(480)
        (stopped,) = s.all(events.OutputStopped)
        assert s.playout.played_samples(stopped.response_id) == 8 * FRAME * 5 // 4


async def test_beside_the_conversation_too() -> None:
    async with session(settings=config(None)) as s:
        slow = config(None, speed=0.5)
        s.conversation.respond_aside(ResponseOptions(), config=slow, items=[])
        await settle()
        assert sum(len(event.pcm) for event in s.all(events.ResponseAudio)) == 2 * 8 * FRAME


async def test_what_nobody_could_hear_does_not_count_as_heard() -> None:
    """A listener who was cut off hears the rest when it is back."""
    async with session(settings=config(None)) as s:
        s.conversation.respond()
        await settle()
        await s.clock.advance(0.2)
        await s.clock.advance(3.0)
        s.conversation.note_outage(3.0)
        replies = s.conversation._replies
        assert replies.unheard_s == pytest.approx(8 * 0.08 - 0.2)
        await s.clock.advance(1.0)
        s.conversation.note_outage(0.1)
        assert replies.unheard_s == 0, "it had ended before"
