"""One session against a scripted engine: turns, items, manual mode, the order of events."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import (
    TURNS,
    UTTERANCE,
    WINDOW,
    config,
    loud,
    quiet,
    session,
    settle,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import events
from pipeline.errors import BadInputError
from pipeline.items import Item, SpeechContent, TextContent
from pipeline.messages import ResponseOptions
from pipeline.session_config import TurnDetection

USER_TURN = ["SpeechStarted", "SpeechStopped", "Committed", "ItemAdded", "ItemDone"]
REPLY = ["ResponseStarted", "ResponseItemStarted", "ItemAdded", "ItemDone", "ResponseFinished"]


def typed(item_id: str, text: str = "hi", role: str = "user") -> Item:
    return Item(id=item_id, role=role, content=[TextContent(text=text)])


def picture(height: int = 4) -> np.ndarray:
    return np.zeros((height, 6, 3), np.uint8)


# ------------------------------------------------------------------ turns by voice
async def test_a_spoken_turn_in_the_order_of_the_protocol() -> None:
    async with session() as s:
        await s.say(UTTERANCE)
        assert s.names() == USER_TURN + REPLY
        assert s.states == ["hearing", "thinking", "speaking", "listening"]
        started, stopped = s.one(events.SpeechStarted), s.one(events.SpeechStopped)
        assert started.audio_start_ms == 160 - 96
        assert stopped.audio_end_ms == 15 * 32 + 192
        item = s.all(events.ItemAdded)[0].item
        assert {started.item_id, stopped.item_id, s.one(events.Committed).item_id} == {item.id}
        assert len(item.content[0].pcm) == (stopped.audio_end_ms - started.audio_start_ms) * 16
        added = s.all(events.ItemAdded)[1]
        assert added.previous_item_id == item.id
        finished = s.one(events.ResponseFinished)
        assert (finished.status, finished.reason, finished.error) == ("completed", None, None)
        assert finished.item.content[0].transcript == "One two three four"
        assert finished.item.content[0].num_samples == 8 * 1920
        assert finished.usage.input_text_tokens == 7
        assert s.conversation.has_spoken
        assert s.engine.context.story == ["user: <0.608 s>", "assistant: One two three four"]
        sent = np.concatenate(s.engine.context.entries[0].chunks)
        np.testing.assert_array_equal(sent, item.content[0].pcm)
        assert "ResponseAudio" in s.names(deltas=True)


async def test_speech_streams_to_the_engine_while_it_lasts() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(4)]))
        speech = s.engine.context.open_speech
        assert speech is not None
        assert speech.num_samples == 4 * WINDOW + 96 * 16
        await s.say(loud(3))
        assert speech.num_samples == 7 * WINDOW + 96 * 16
        assert all(len(chunk) <= 1600 + 96 * 16 for chunk in speech.chunks)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2 * len(UTTERANCE)), max_size=12), st.booleans())
async def test_any_chunking_gives_the_same_turns(cuts: list[int], at_once: bool) -> None:
    pcm = np.concatenate([UTTERANCE, UTTERANCE])
    async with session(settings=config(dataclasses.replace(TURNS, create_response=False))) as s:
        for chunk in np.split(pcm, sorted(cuts)):
            await s.conversation.append_audio(chunk, rate_hz=16_000)
            if not at_once:
                await asyncio.sleep(0)
        assert s.names() == USER_TURN * 2
        starts = [event.audio_start_ms for event in s.all(events.SpeechStarted)]
        assert starts == [64, 64 + 23 * 32]
        assert s.engine.context.story == ["user: <0.608 s>"] * 2
        assert s.conversation.input_ms == 2 * 23 * 32


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 44_100, 48_000])
async def test_other_rates_give_the_same_turn(rate_hz: int) -> None:
    pcm = np.repeat(UTTERANCE, 3) if rate_hz == 48_000 else UTTERANCE
    times = np.arange(int(len(UTTERANCE) * rate_hz / 16_000)) * 16_000 / rate_hz
    pcm = UTTERANCE[np.minimum(times.astype(int), len(UTTERANCE) - 1)]
    async with session() as s:
        for start in range(0, len(pcm), rate_hz // 50):
            await s.conversation.append_audio(pcm[start : start + rate_hz // 50], rate_hz=rate_hz)
        await settle()
        assert s.names() == USER_TURN + REPLY
        # the low-pass rings a little before a step
        assert s.one(events.SpeechStarted).audio_start_ms in (32, 64)
        assert s.conversation.input_ms == pytest.approx(23 * 32, abs=1)


async def test_minutes_at_once_are_taken_in_without_holding_up_others() -> None:
    turns = 60
    async with session(settings=config(dataclasses.replace(TURNS, create_response=False))) as s:
        appending = asyncio.ensure_future(
            s.conversation.append_audio(np.tile(UTTERANCE, turns), rate_hz=16_000)
        )
        passes = 0
        while not appending.done():
            await asyncio.sleep(0)
            passes += 1
        assert passes > 7 * turns
        assert len(s.all(events.Committed)) == turns


async def test_a_sender_that_falls_silent_ends_its_turn() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(5)]))
        await s.clock.advance(4.9)
        assert s.names() == ["SpeechStarted"]
        await s.say(loud(1))
        await s.clock.advance(4.9)
        assert s.names() == ["SpeechStarted"]
        await s.clock.advance(0.2)
        assert s.names() == USER_TURN + REPLY
        await s.say(np.concatenate([quiet(5), loud(5)]))
        await s.clock.advance(5.1)
        assert s.names() == (USER_TURN + REPLY) * 2


async def test_a_turn_without_end_is_ended_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.user_turns.MAX_SPEECH_SAMPLES", 20 * WINDOW)
    async with session() as s:
        await s.say(loud(30))
        assert s.names()[:3] == ["SpeechStarted", "Failed", "SpeechStopped"]
        assert s.one(events.Failed).code == "turn_too_long"
        # 20 windows, and what else had arrived with them
        assert s.engine.context.story[0] == "user: <0.700 s>"


async def test_metrics_count_from_the_true_end_of_speech() -> None:
    engine = FakeEngine(Script(holds_at=0))
    async with session(engine=engine) as s:
        await s.say(
            UTTERANCE[: 22 * WINDOW]
        )  # six windows of silence so far, 192 ms: the turn is over
        await s.clock.advance(0.05)
        engine.response.go_on()
        await settle()
        metrics = s.one(events.TurnMetrics)
        assert metrics.turn_end_ms == 192
        # the seventh window had arrived with the rest
        assert metrics.first_audio_ms == pytest.approx(22 * 32 - 15 * 32 + 50)
        assert (metrics.engine.first_pcm, metrics.engine.tokens_left) == (12.0, 3)
        assert metrics.num_underruns == 0


async def test_only_events_where_no_response_is_wanted() -> None:
    turns = dataclasses.replace(TURNS, create_response=False)
    async with session(settings=config(turns)) as s:
        await s.say(UTTERANCE)
        assert s.names() == USER_TURN
        s.conversation.respond()
        await settle()
        assert s.names() == USER_TURN + REPLY
        assert s.one(events.TurnMetrics).turn_end_ms == 192


async def test_a_turn_that_ends_during_a_reply_waits_for_it() -> None:
    turns = dataclasses.replace(TURNS, interrupt_response=False)
    engine = FakeEngine(Script(holds_at=4))
    async with session(engine=engine, settings=config(turns)) as s:
        await s.say(UTTERANCE)
        await s.say(UTTERANCE)
        assert s.names().count("ResponseStarted") == 1
        assert s.names().count("Committed") == 2
        engine.responses[0].go_on()
        await settle()
        assert len(engine.responses) == 2
        engine.responses[1].go_on()
        await settle()
        assert [e.status for e in s.all(events.ResponseFinished)] == ["completed", "completed"]
        told = [line.split(":")[0] for line in engine.context.story]
        assert told == ["user", "assistant", "user", "assistant"]


# ------------------------------------------------------------------ manual turns
async def test_manual_turn() -> None:
    async with session(settings=config(None)) as s:
        await s.say(loud(10))
        assert s.engine.context.open_speech is not None
        assert s.names() == []
        s.conversation.commit()
        assert s.names() == ["Committed", "ItemAdded", "ItemDone"]
        await settle()
        assert len(s.engine.responses) == 0
        s.conversation.respond()
        await settle()
        assert s.names()[3:] == REPLY
        assert s.engine.context.story == ["user: <0.320 s>", "assistant: One two three four"]
        assert s.one(events.TurnMetrics).turn_end_ms is None
        assert s.one(events.TurnMetrics).first_audio_ms == 0


async def test_a_microphone_that_never_stops_lets_replies_and_items_pass() -> None:
    async with session(settings=config(None)) as s:
        await s.say(loud(10))
        s.conversation.commit()
        await s.say(quiet(3))
        s.conversation.create_item(typed("t", "and this"))
        await s.say(quiet(3))
        s.conversation.respond()
        await s.say(quiet(3))
        story = ["user: <0.320 s>", "user: and this", "assistant: One two three four"]
        assert s.engine.context.story == [*story, "user: <0.288 s>"]
        s.conversation.clear_input()
        assert s.engine.context.story == story
        assert s.names()[-1] == "Cleared"
        await s.say(loud(4))
        s.conversation.commit()
        assert s.engine.context.story == [*story, "user: <0.128 s>"]


async def test_commit_of_too_little() -> None:
    async with session(settings=config(None)) as s:
        await s.conversation.append_audio(np.zeros(2376, np.float32), rate_hz=24_000)
        with pytest.raises(BadInputError, match=r"buffer only has 99\.00ms of audio\.$") as caught:
            s.conversation.commit()
        assert caught.value.code == "input_audio_buffer_commit_empty"
        assert "Expected at least 100ms of audio" in str(caught.value)
        await s.conversation.append_audio(np.zeros(24, np.float32), rate_hz=24_000)
        s.conversation.commit()  # exactly 100 ms: what the resampler holds back does count
        assert s.names() == ["Committed", "ItemAdded", "ItemDone"]
        with pytest.raises(BadInputError, match=r"has 0\.00ms"):
            s.conversation.commit()


async def test_a_manual_buffer_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.user_turns.MAX_SPEECH_SAMPLES", 20 * WINDOW)
    async with session(settings=config(None)) as s:
        s.conversation.append_frame(picture())
        await s.say(np.concatenate([quiet(30), loud(10)]))
        assert s.engine.context.story == []
        s.conversation.commit()
        item = s.one(events.ItemDone).item
        np.testing.assert_array_equal(item.content[0].pcm, np.concatenate([quiet(10), loud(10)]))
        assert [frame.time_s for frame in item.content[0].frames] == [pytest.approx(1.0 - 0.64)]
        assert s.engine.context.story == ["user: <0.640 s, 1 frames>"]
        assert s.one(events.Failed).code == "input_audio_buffer_overflow"


# ------------------------------------------------------------------ commit, clear, settings in voic
async def test_commit_ends_an_open_turn_early() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(5), np.full(100, 0.5, np.float32)]))
        s.conversation.commit()
        assert s.names() == USER_TURN
        assert s.one(events.SpeechStopped).audio_end_ms == (10 * WINDOW + 100) // 16
        await settle()
        assert s.engine.responses == []
        await s.say(quiet(20))
        assert s.names() == USER_TURN


async def test_commit_without_speech_takes_the_pre_roll() -> None:
    async with session(settings=config(TurnDetection(prefix_padding_ms=200))) as s:
        await s.say(quiet(3))
        with pytest.raises(BadInputError, match=r"only has 96\.00ms"):
            s.conversation.commit()
        await s.say(quiet(20))
        s.conversation.commit()
        assert s.names() == ["Committed", "ItemAdded", "ItemDone"]
        assert s.engine.context.story == ["user: <0.200 s>"]
        with pytest.raises(BadInputError):
            s.conversation.commit()


async def test_clear_during_speech_takes_it_back() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(5)]))
        s.conversation.clear_input()
        assert s.names() == ["SpeechStarted", "Cleared"]
        assert s.engine.context.story == []
        assert s.states == ["hearing", "listening"]
        await s.say(np.concatenate([loud(5), quiet(8)]))
        assert s.names() == ["SpeechStarted", "Cleared", *USER_TURN, *REPLY]
        assert s.all(events.SpeechStarted)[1].audio_start_ms == 320


async def test_turn_detection_may_be_switched_at_any_time() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(5)]))
        s.conversation.configure(config(None))
        assert s.names() == ["SpeechStarted", "SpeechStopped"]
        await s.say(loud(5))
        s.conversation.commit()
        assert s.engine.context.story == [f"user: <{(10 * 32 + 96) / 1000:.3f} s>"]
        await s.say(loud(5))
        s.conversation.configure(config())
        assert len(s.engine.context.story) == 1
        s.forget()
        await s.say(UTTERANCE)
        assert s.names() == USER_TURN + REPLY


async def test_instructions_and_voice_reach_the_engine() -> None:
    async with session() as s:
        s.conversation.configure(config(voice="other", output="text", max_output_tokens=5))
        assert s.engine.context.voice == "other"
        await s.say(UTTERANCE)
        assert s.engine.response.options == ResponseOptions(
            audio=False, max_tokens=5, tool_choice="none"
        )
        assert s.one(events.ResponseStarted).has_audio is False
        assert s.one(events.ResponseFinished).item.content == [
            TextContent(text="One two three four")
        ]
        assert not s.conversation.has_spoken
        assert s.engine.context.calls.count("configure") == 1


# ------------------------------------------------------------------ items
async def test_typed_turn() -> None:
    async with session() as s:
        s.conversation.create_item(typed("a"))
        reply_id = s.conversation.respond()
        await settle()
        assert s.names() == ["ItemAdded", "ItemDone", *REPLY]
        assert s.one(events.ResponseFinished).response_id == reply_id
        assert s.engine.context.story == ["user: hi", "assistant: One two three four"]
        metrics = s.one(events.TurnMetrics)
        assert (metrics.turn_end_ms, metrics.first_audio_ms) == (None, None)
        assert s.conversation.get_item("a") is not None
        assert s.conversation.get_item("b") is None


async def test_a_typed_turn_takes_the_newest_frame_along() -> None:
    async with session() as s:
        s.conversation.append_frame(picture(4))
        s.conversation.append_frame(picture(8))
        s.conversation.create_item(typed("a", "look"))
        s.conversation.create_item(typed("b", "I see", role="assistant"))
        s.conversation.stop_camera()
        s.conversation.create_item(typed("c", "and now"))
        story = ["user: <picture 6x8> look", "assistant: I see", "user: and now"]
        assert s.engine.context.story == story
        assert s.conversation.get_item("a").content == [TextContent(text="look")]
        s.conversation.delete_item("c")
        assert s.engine.context.story == story[:2]  # a rebuild shows the picture again


async def test_inserts_and_deletes_rebuild() -> None:
    async with session() as s:
        for name in "ac":
            s.conversation.create_item(typed(name, name))
        assert "rebuild" not in s.engine.context.calls
        s.conversation.create_item(typed("b", "b"), previous_item_id="a")
        s.conversation.create_item(typed("z", "z", "system"), previous_item_id="root")
        assert s.engine.context.story == ["system: z", "user: a", "user: b", "user: c"]
        assert [e.previous_item_id for e in s.all(events.ItemAdded)] == [None, "a", "a", None]
        s.conversation.delete_item("a")
        assert s.engine.context.story == ["system: z", "user: b", "user: c"]
        assert s.names()[-1] == "ItemDeleted"
        with pytest.raises(BadInputError):
            s.conversation.create_item(typed("b"))
        with pytest.raises(BadInputError):
            s.conversation.create_item(typed("d"), previous_item_id="nobody")
        with pytest.raises(BadInputError):
            s.conversation.delete_item("a")


async def test_edits_during_a_reply_wait_for_its_end() -> None:
    engine = FakeEngine(Script(holds_at=4))
    async with session(engine=engine) as s:
        s.conversation.create_item(typed("a", "a"))
        s.conversation.respond()
        await settle()
        s.conversation.create_item(typed("b", "b"), previous_item_id="root")
        s.conversation.create_item(typed("c", "c"))
        await s.say(np.concatenate([quiet(5), np.full(10, 0.5, np.float32)]))
        assert "rebuild" not in engine.context.calls
        engine.response.go_on()
        await settle()
        said = "assistant: One two three four"
        assert engine.context.story == ["user: b", "user: a", said, "user: c"]


async def test_a_reply_stands_behind_what_it_answers() -> None:
    engine = FakeEngine(Script(holds_at=0))
    async with session(engine=engine) as s:
        s.conversation.create_item(typed("a"))
        s.conversation.respond()
        await settle()
        s.conversation.create_item(typed("b"))
        engine.response.go_on()
        await settle()
        added = [(e.item.role, e.previous_item_id) for e in s.all(events.ItemAdded)]
        assert added == [("user", None), ("user", "a"), ("assistant", "a")]
        s.conversation.create_item(typed("z"), previous_item_id="root")  # tells all of it anew
        roles = [line.split(":")[0] for line in engine.context.story]
        assert roles == ["user", "user", "assistant", "user"]


async def test_a_typed_item_during_speech_goes_before_it() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(5)]))
        s.conversation.create_item(typed("a", "first"))
        await s.say(np.concatenate([loud(5), quiet(8)]))
        assert s.engine.context.story[:2] == ["user: first", "user: <0.608 s>"]
        sent = s.engine.context.entries[1].pcm
        np.testing.assert_array_equal(sent, s.all(events.ItemDone)[1].item.content[0].pcm)


async def test_recorded_speech_may_be_an_item() -> None:
    async with session() as s:
        content = SpeechContent(pcm=loud(10))
        s.conversation.create_item(Item(id="v", role="user", content=[content]))
        assert s.engine.context.story == ["user: <0.320 s>"]


# ------------------------------------------------------------------ the camera beside speech
async def test_frames_lie_beside_the_sound() -> None:
    async with session() as s:
        s.conversation.append_frame(picture(4))
        await s.say(np.concatenate([quiet(5), loud(10)]))
        s.conversation.append_frame(picture(8))
        await s.say(np.concatenate([loud(30), quiet(6)]))
        speech = s.engine.context.entries[0]
        assert [frame.time_s for frame in speech.frames] == [0.0, 0.5, 1.0, 1.5]
        assert [frame.rgb.shape[0] for frame in speech.frames] == [4, 8, 8, 8]
        assert s.all(events.ItemDone)[0].item.content[0].frames == tuple(speech.frames)


async def test_a_camera_that_comes_late_waits_for_the_next_speech() -> None:
    async with session() as s:
        await s.say(np.concatenate([quiet(5), loud(5)]))
        s.conversation.append_frame(picture())
        await s.say(np.concatenate([loud(30), quiet(6)]))
        await s.say(np.concatenate([quiet(3), loud(10)]))
        s.conversation.stop_camera()
        await s.say(np.concatenate([loud(30), quiet(6)]))
        speeches = [entry for entry in s.engine.context.entries if hasattr(entry, "chunks")]
        assert [(speech.has_camera, len(speech.frames)) for speech in speeches] == [
            (False, 0),
            (True, 1),
        ]


# ------------------------------------------------------------------ replies
async def test_one_reply_at_a_time() -> None:
    engine = FakeEngine(Script(holds_at=2))
    async with session(engine=engine) as s:
        first = s.conversation.respond()
        with pytest.raises(BadInputError, match=f"in progress: {first}") as caught:
            s.conversation.respond()
        assert caught.value.code == "conversation_already_has_active_response"
        await settle()
        for wrong in ("resp_other", None):
            if wrong is None:
                s.conversation.cancel_response()
                s.conversation.respond()  # at once: the cancelled one is over
                s.conversation.cancel_response()
            with pytest.raises(BadInputError, match=r"^Cancellation failed") as caught:
                s.conversation.cancel_response(wrong)
            assert caught.value.code == "response_cancel_not_active"
        await settle()
        done = s.all(events.ResponseFinished)
        assert [(e.status, e.reason) for e in done] == [("cancelled", "client_cancelled")] * 2
        assert done[0].item.status == "incomplete"
        assert done[1].item is None


@pytest.mark.parametrize(
    ("status", "reason", "item_status"),
    [
        ("completed", None, "completed"),
        ("incomplete", "max_output_tokens", "incomplete"),
        ("failed", None, "incomplete"),
    ],
)
async def test_every_ending_is_told_once(status: str, reason: str | None, item_status: str) -> None:
    error = "no memory" if status == "failed" else None
    async with session(engine=FakeEngine(Script(status=status, error=error))) as s:
        s.conversation.respond()
        await settle()
        assert s.names() == REPLY
        finished = s.one(events.ResponseFinished)
        assert (finished.status, finished.reason, finished.error) == (status, reason, error)
        assert finished.item.status == item_status
        assert s.one(events.TurnMetrics).response_id == finished.response_id


async def test_a_reply_without_output_has_no_item() -> None:
    async with session(engine=FakeEngine(Script(words=(), num_frames=0))) as s:
        s.conversation.respond()
        await settle()
        assert s.names() == ["ResponseStarted", "ResponseFinished"]
        assert s.one(events.ResponseFinished).item is None


async def test_a_text_reply_that_is_cut_is_remembered_as_written() -> None:
    engine = FakeEngine(Script(holds_at=2))
    async with session(engine=engine) as s:
        s.conversation.create_item(typed("a"))
        s.conversation.respond(ResponseOptions(audio=False))
        await settle()
        s.conversation.cancel_response()
        await settle()
        assert s.one(events.ResponseFinished).item.content == [TextContent(text="One two")]
        assert engine.context.story == ["user: hi", "assistant: One two"]


async def test_deleting_the_reply_that_is_being_made_stops_it() -> None:
    engine = FakeEngine(Script(holds_at=2))
    async with session(engine=engine) as s:
        s.conversation.respond()
        await settle()
        s.conversation.delete_item(s.one(events.ResponseItemStarted).item.id)
        assert s.names()[-2:] == ["ResponseFinished", "ItemDeleted"]
        assert engine.context.story == []
