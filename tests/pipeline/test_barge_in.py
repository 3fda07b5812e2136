"""Interruptions: what stops, what is remembered, who says how much was heard."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import TURNS, UTTERANCE, config, loud, quiet, session, settle

from pipeline import events
from pipeline.errors import BadInputError

FRAME = 1920
SPEECH = np.concatenate([quiet(2), loud(8)])


async def test_with_a_paced_output_history_ends_where_it_was_cut() -> None:
    engine = FakeEngine(Script(holds_at=6))
    async with session(engine=engine, has_playout=True) as s:
        await s.say(UTTERANCE)
        for _ in range(9):
            s.playout.read(480)  # 180 ms: two of eight frames, one of four words
        s.forget()
        await s.say(SPEECH)
        assert s.names() == [
            "SpeechStarted",
            "ItemDone",
            "ResponseFinished",
            "OutputCleared",
            "ItemTruncated",
        ]
        finished = s.one(events.ResponseFinished)
        assert (finished.status, finished.reason) == ("cancelled", "turn_detected")
        assert s.one(events.ItemTruncated).audio_end_ms == 180
        assert s.one(events.OutputCleared).response_id == finished.response_id
        voice = finished.item.content[0]
        assert voice.transcript == "One"
        assert voice.num_samples == 9 * 480
        assert finished.item.status == "incomplete"
        assert engine.responses[0].heard_calls == [9 * 480]
        assert engine.responses[0].is_cancelled
        story = engine.context.story
        assert story[:2] == ["user: <0.608 s>", "assistant: One"]
        assert story[2].startswith("user: <")
        calls = engine.context.calls
        last_speech = len(calls) - 1 - calls[::-1].index("begin_speech")
        assert calls.index("cancel") < calls.index("heard") < last_speech
        assert not s.playout.read(480)[100:].any()
        assert s.states[-1] == "hearing"
        assert s.names(metrics=True).count("TurnMetrics") == 1


async def test_a_reply_that_was_made_but_not_played_is_cut_too() -> None:
    async with session(has_playout=True) as s:
        await s.say(UTTERANCE)
        assert s.one(events.ResponseFinished).status == "completed"
        for _ in range(4 * FRAME // 480):
            s.playout.read(480)
        assert s.states[-1] == "speaking"
        s.forget()
        await s.say(SPEECH)
        assert s.names() == ["SpeechStarted", "OutputCleared", "ItemTruncated"]
        assert s.one(events.ItemTruncated).audio_end_ms == 320
        item = s.conversation.get_item(s.one(events.ItemTruncated).item_id)
        assert (item.content[0].transcript, item.status) == ("One two", "incomplete")
        assert s.engine.context.story[1] == "assistant: One two"


async def test_played_to_its_end_nothing_is_cut() -> None:
    async with session(has_playout=True) as s:
        await s.say(UTTERANCE)
        for _ in range(8 * FRAME // 480):
            s.playout.read(480)
        assert s.names()[-2:] == ["OutputStarted", "OutputStopped"]
        assert s.states[-1] == "listening"
        s.forget()
        await s.say(SPEECH)
        assert s.names() == ["SpeechStarted"]
        assert s.engine.context.story[1] == "assistant: One two three four"


async def test_interrupted_before_the_first_sound() -> None:
    async with session(engine=FakeEngine(Script(holds_at=0)), has_playout=True) as s:
        await s.say(UTTERANCE)
        s.forget()
        await s.say(SPEECH)
        assert s.names() == ["SpeechStarted", "ResponseFinished"]
        assert s.one(events.ResponseFinished).item is None
        assert len(s.engine.context.story) == 2


async def test_queued_but_unheard_counts_as_nothing() -> None:
    async with session(has_playout=True) as s:
        await s.say(UTTERANCE)
        s.forget()
        await s.say(SPEECH)
        assert s.names() == ["SpeechStarted", "ItemTruncated"]
        assert s.one(events.ItemTruncated).audio_end_ms == 0
        assert s.engine.context.story[0] == "user: <0.608 s>"
        assert len(s.engine.context.story) == 2  # the reply left nothing


async def test_the_echo_guard_asks_for_longer_speech_while_playing() -> None:
    async with session(has_playout=True) as s:
        await s.say(UTTERANCE)
        s.playout.read(480)
        s.forget()
        await s.say(np.concatenate([loud(4), quiet(3)]))
        assert s.names() == []
        await s.say(loud(5))
        assert s.names()[0] == "SpeechStarted"


async def test_without_interruption_the_output_plays_on() -> None:
    turns = dataclasses.replace(TURNS, interrupt_response=False, create_response=False)
    async with session(settings=config(turns), has_playout=True) as s:
        s.conversation.respond()
        await settle()
        s.playout.read(480)
        await s.say(UTTERANCE)
        assert "OutputCleared" not in s.names()
        for _ in range(40):
            s.playout.read(480)
        assert s.names()[-1] == "OutputStopped"


async def test_cancel_lets_what_is_queued_play_and_clear_cuts_it() -> None:
    engine = FakeEngine(Script(holds_at=6))
    async with session(engine=engine, has_playout=True) as s:
        s.conversation.respond()
        await settle()
        s.playout.read(FRAME * 2)
        s.conversation.cancel_response()
        await settle()
        finished = s.one(events.ResponseFinished)
        assert (finished.status, finished.reason) == ("cancelled", "client_cancelled")
        assert finished.item.content[0].transcript == "One two three"  # all that was queued
        assert engine.response.kept == "One two three"
        assert s.playout.read(FRAME).any()
        s.conversation.clear_output()
        await settle()
        assert s.names()[-2:] == ["OutputCleared", "ItemTruncated"]
        assert s.one(events.ItemTruncated).audio_end_ms == 240
        assert engine.response.kept == "One"
        s.conversation.clear_output()
        assert s.names()[-1] == "ItemTruncated"


async def test_clearing_the_output_of_a_running_reply_ends_it() -> None:
    engine = FakeEngine(Script(holds_at=6))
    async with session(engine=engine, has_playout=True) as s:
        s.conversation.respond()
        await settle()
        s.playout.read(FRAME * 4)
        s.conversation.clear_output()
        await settle()
        assert s.names()[-4:] == ["ItemDone", "ResponseFinished", "OutputCleared", "ItemTruncated"]
        assert engine.context.story == ["assistant: One two"]


# ------------------------------------------------------------------ the owner plays by itself
async def test_without_a_paced_output_the_wall_clock_estimates() -> None:
    engine = FakeEngine(Script(holds_at=6))
    async with session(engine=engine) as s:
        await s.say(UTTERANCE)
        await s.clock.advance(0.33)  # four of eight frames
        s.forget()
        await s.say(SPEECH)
        assert s.names() == ["SpeechStarted", "ItemDone", "ResponseFinished"]
        item = s.one(events.ResponseFinished).item
        assert item.content[0].transcript == "One two"
        assert engine.responses[0].heard_calls == [round(0.33 * 24_000)]
        s.conversation.truncate_item(item.id, audio_end_ms=170)
        await settle()
        assert s.names()[-1] == "ItemTruncated"
        assert s.one(events.ItemTruncated).audio_end_ms == 170
        assert item.content[0].transcript == "One"
        assert item.content[0].num_samples == 170 * 24
        assert engine.context.story[1] == "assistant: One"


async def test_a_finished_reply_that_still_plays_somewhere() -> None:
    async with session() as s:
        await s.say(UTTERANCE)
        await s.clock.advance(0.33)
        item = s.one(events.ResponseFinished).item
        s.forget()
        await s.say(SPEECH)
        assert s.names() == ["SpeechStarted"]
        assert item.content[0].transcript == "One two"
        assert s.engine.context.story[1] == "assistant: One two"
        s.conversation.truncate_item(
            item.id, audio_end_ms=500
        )  # the owner knows better: more was heard
        await settle()
        assert item.content[0].transcript == "One two three"
        assert s.engine.context.story[1] == "assistant: One two three"


async def test_long_after_its_end_a_reply_was_heard() -> None:
    async with session() as s:
        await s.say(UTTERANCE)
        await s.clock.advance(1.0)
        await s.say(SPEECH)
        assert s.engine.context.story[1] == "assistant: One two three four"
        assert s.engine.response.heard_calls == []


async def test_truncation_errors_leave_all_as_it_was() -> None:
    async with session() as s:
        await s.say(UTTERANCE)
        item = s.one(events.ResponseFinished).item
        user_id = s.one(events.Committed).item_id
        for item_id, end_ms, code, match in [
            ("item_x", 10, "item_truncate_invalid_item_id", "does not exist"),
            (user_id, 10, "unsupported_content_type", "Only model output audio messages"),
            (item.id, -1, "invalid_value", "negative"),
            (item.id, 641, "invalid_value", "of 640ms is already shorter than 641ms"),
        ]:
            with pytest.raises(BadInputError, match=match) as caught:
                s.conversation.truncate_item(item_id, audio_end_ms=end_ms)
            assert caught.value.code == code
        await settle()
        assert s.engine.context.story[1] == "assistant: One two three four"
        assert s.all(events.ItemTruncated) == []
        s.conversation.truncate_item(item.id, audio_end_ms=640)
        assert s.one(events.ItemTruncated).audio_end_ms == 640


async def test_what_was_cut_does_not_come_back() -> None:
    """Neither by a later cut nor by one beyond the end, which clients often send."""
    async with session() as s:
        await s.say(UTTERANCE)
        item = s.one(events.ResponseFinished).item
        s.conversation.truncate_item(item.id, audio_end_ms=200)
        await settle()
        left = item.content[0].transcript, s.engine.context.story
        assert left[0] not in ("", "One two three four")
        s.conversation.truncate_item(item.id, audio_end_ms=400)
        with pytest.raises(BadInputError, match="already shorter"):
            s.conversation.truncate_item(item.id, audio_end_ms=99_999)
        await settle()
        assert (item.content[0].transcript, s.engine.context.story) == left


async def test_truncating_a_running_reply_stops_it() -> None:
    engine = FakeEngine(Script(holds_at=6))
    async with session(engine=engine) as s:
        s.conversation.respond()
        await settle()
        s.conversation.truncate_item(s.one(events.ResponseItemStarted).item.id, audio_end_ms=200)
        await settle()
        assert s.names()[-3:] == ["ItemDone", "ResponseFinished", "ItemTruncated"]
        assert engine.context.story == ["assistant: One"]


async def test_truncating_a_reply_before_its_first_sample() -> None:
    engine = FakeEngine(Script(num_frames=0, holds_at=1))
    async with session(engine=engine) as s:
        s.conversation.respond()
        await settle()
        s.conversation.truncate_item(s.one(events.ResponseItemStarted).item.id, audio_end_ms=50)
        assert s.one(events.ItemTruncated).audio_end_ms == 50
        assert s.one(events.ResponseFinished).item.content[0].transcript == ""


async def test_an_owner_that_names_more_than_was_played_is_corrected() -> None:
    async with session(has_playout=True) as s:
        await s.say(UTTERANCE)
        s.playout.read(4 * FRAME)
        item = s.one(events.ResponseFinished).item
        s.conversation.truncate_item(item.id, audio_end_ms=600)
        await settle()
        assert s.names()[-2:] == ["OutputCleared", "ItemTruncated"]
        assert s.one(events.ItemTruncated).audio_end_ms == 320
        s.conversation.truncate_item(item.id, audio_end_ms=600)  # clients may send it again
        await settle()
        assert s.engine.context.story[1] == "assistant: One two"
        assert item.content[0].transcript == "One two"


async def test_a_truncation_after_an_edit_tells_the_conversation_anew() -> None:
    async with session() as s:
        await s.say(UTTERANCE)
        item = s.one(events.ResponseFinished).item
        s.conversation.delete_item(s.one(events.Committed).item_id)
        s.conversation.truncate_item(item.id, audio_end_ms=170)
        await settle()
        assert s.engine.context.story == ["assistant: One"]
        assert s.engine.response.heard_calls == []
