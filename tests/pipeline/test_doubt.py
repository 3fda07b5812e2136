"""Speech over a reply in two steps: ducked at once, then stopped for good or resumed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import TURNS, Session, config, loud, quiet, session, settle
from scripted_judges import judges

from pipeline import events
from pipeline.listening.judges import Judges
from pipeline.playout import DUCKED, RAMP_SAMPLES

JUDGED = dataclasses.replace(
    TURNS, eagerness="auto", tentative_ms=128, speculates=True, judges_interruptions=True
)
LOUD = 1000


async def talking(s: Session) -> None:
    """Ask for a reply of two seconds and hear its beginning."""
    s.conversation.respond()
    await settle()
    s.playout.read(480)
    s.forget()


def script() -> FakeEngine:
    return FakeEngine(Script(num_frames=25, words=tuple(f" w{i}" for i in range(25))))


def level(s: Session) -> float:
    """Loudness of the later half of the next 40 ms beside what was written: numbers of frames."""
    before = s.playout.played_samples(next(iter(s.playout._played)))
    written = np.arange(before + 480, before + 960) // 1920 + 1
    return float(np.abs(s.playout.read(960).astype(float)[480:]).mean() / written.mean())


@pytest.fixture
def big_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames loud enough that a quarter of them is no zero."""
    original = np.full

    def full(shape: int, value: float, dtype: object) -> np.ndarray:
        return original(shape, value * LOUD if dtype is np.int16 else value, dtype)

    monkeypatch.setattr("fake_engine.np.full", full)


async def run(s: Session, said: list[tuple[np.ndarray, str]]) -> None:
    """Say each sound; behind it the output must be "full", "soft" or "silent"."""
    for pcm, loudness in said:
        await s.say(pcm)
        found = level(s) / LOUD
        wanted = {"full": 1.0, "soft": DUCKED, "silent": 0.0}[loudness]
        assert found == pytest.approx(wanted, abs=0.15 if wanted else 0), (loudness, found)


def guarded(interruption: list[float]) -> Judges:
    return judges(interruption=interruption)


async def test_what_is_no_interruption_lets_the_reply_go_on_where_it_stopped(
    big_frames: None,
) -> None:
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=guarded([0.2])
    ) as s:
        await talking(s)
        # the echo guard asks for three windows, and there is a look at once
        await run(s, [(loud(2), "full"), (loud(1), "silent")])
        stopped_at = s.playout.played_samples(next(iter(s.playout._played)))
        assert s.playout.num_underruns == 0
        await run(s, [(quiet(2), "full")])
        assert s.playout.played_samples(next(iter(s.playout._played))) == stopped_at + 960
        await s.say(quiet(20))
        assert s.names() == []
        assert s.engine.context.story == [
            "assistant:  w0" + "".join(f" w{i}" for i in range(1, 25))
        ]
        assert "begin_speech" not in s.engine.context.calls


async def test_of_what_is_held_nothing_is_lost_but_the_ramp() -> None:
    async with session(engine=script(), has_playout=True) as s:
        await talking(s)
        (reply,) = s.playout._played
        s.playout.hold()
        s.playout.read(4800)
        s.playout.read(4800)
        assert s.playout.played_samples(reply) == 480 + RAMP_SAMPLES
        s.playout.resume()
        s.playout.read(480)
        assert s.playout.played_samples(reply) == 960 + RAMP_SAMPLES
        assert s.playout.num_underruns == 0


async def test_an_interruption_stops_it_and_is_a_turn_from_its_onset() -> None:
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=guarded([0.2, 0.95])
    ) as s:
        await talking(s)
        await s.say(np.concatenate([quiet(5), loud(8)]))
        assert s.names() == ["SpeechStarted", "OutputCleared", "ItemTruncated"]
        assert s.one(events.SpeechStarted).audio_start_ms == 2 * 32  # 96 ms of padding
        await s.say(np.concatenate([loud(4), quiet(8)]))
        assert s.names()[-1] == "ResponseFinished"
        assert [line.split(":")[0] for line in s.engine.context.story] == ["user", "assistant"]


async def test_who_goes_on_is_believed_at_last() -> None:
    said = guarded([0.0] * 7 + [0.9])
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=said
    ) as s:
        await talking(s)
        await s.say(loud(12))
        assert s.names() == []
        await s.say(loud(40))
        assert s.names()[0] == "SpeechStarted"


@pytest.mark.parametrize("is_somebody_else", [False, True])
async def test_who_speaks_on_and_on_is_heard_unless_it_is_somebody_else(
    is_somebody_else: bool,
) -> None:
    said = guarded([0.0])
    said.interruption.is_side_speech = is_somebody_else
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=said
    ) as s:
        await talking(s)
        await s.say(loud(40))
        assert s.names() == []
        await s.say(loud(30))
        assert ("SpeechStarted" in s.names()) is not is_somebody_else


async def test_without_a_word_in_half_a_second_the_likelier_one_wins() -> None:
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=guarded([0.6])
    ) as s:
        await talking(s)
        await s.say(loud(14))
        assert s.names() == []
        await s.say(loud(2))
        assert s.names()[0] == "SpeechStarted"


async def test_a_sender_that_falls_silent_in_doubt_does_not_hold_the_reply() -> None:
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=guarded([0.2])
    ) as s:
        await talking(s)
        await s.say(loud(7))
        assert not s.playout.read(960)[480:].any()
        await s.clock.advance(6)
        assert s.playout.read(960)[480:].any()
        assert s.names() == []


async def test_the_reply_ends_in_doubt_and_the_speech_is_a_turn() -> None:
    engine = FakeEngine(Script(num_frames=1))
    async with session(engine=engine, settings=config(JUDGED), judges=guarded([0.2])) as s:
        s.conversation.respond()
        await settle()
        s.forget()
        await s.say(loud(5))
        assert set(s.names()) == {"OutputDoubted"}
        await s.clock.advance(1)
        await s.say(loud(1))
        assert s.one(events.SpeechStarted)


async def test_without_interruption_nothing_is_judged() -> None:
    said = guarded([0.2])
    turns = dataclasses.replace(JUDGED, interrupt_response=False)
    async with session(engine=script(), settings=config(turns), has_playout=True, judges=said) as s:
        await talking(s)
        await s.say(loud(8))
        assert s.names() == ["SpeechStarted"]
        assert said.interruption.num_looks == 0
        assert s.playout.read(960)[480:].any()


async def test_cleared_input_is_forgotten_and_the_reply_goes_on() -> None:
    async with session(
        engine=script(), settings=config(JUDGED), has_playout=True, judges=guarded([0.2])
    ) as s:
        await talking(s)
        await s.say(loud(7))
        s.conversation.clear_input()
        assert s.names() == ["Cleared"]
        assert s.playout.read(960)[480:].any()


async def silence_ms(s: Session, sound: np.ndarray) -> int:
    """How long silence lasts behind a sound until it is a turn that is over."""
    await s.say(np.concatenate([quiet(5), sound]))
    for count in range(1, 80):
        await s.say(quiet(1))
        s.playout.read(768)
        if s.all(events.SpeechStopped):
            return 32 * count
    raise AssertionError("the turn does not end")


@pytest.mark.parametrize("num_windows", [5, 9, 20])
@pytest.mark.parametrize("complete", [1.0, 0.0])
async def test_an_interruption_ends_as_any_turn_does_however_short(
    num_windows: int, complete: float
) -> None:
    """Its end is judged, so "stop" is answered at once, and "wait ..." is waited for."""
    settings = dataclasses.replace(JUDGED, tentative_ms=64)  # no longer than what decides of it
    found = []
    for is_over_a_reply in (True, False):
        judged = judges(complete=[complete], interruption=[0.9])
        async with session(
            engine=script(), settings=config(settings), has_playout=True, judges=judged
        ) as s:
            if is_over_a_reply:
                await talking(s)
            found.append(await silence_ms(s, loud(num_windows)))
            assert s.all(events.Speculated) or s.all(events.ResponseStarted)
    over, plain = found
    assert plain < 300 if complete else plain > 1_000
    assert over == plain


async def test_a_sound_that_is_over_before_it_was_decided_is_decided_then() -> None:
    """Short silence ends turns; of so little sound the words are still awaited."""
    settings = dataclasses.replace(
        JUDGED, eagerness=None, silence_duration_ms=96, tentative_ms=None
    )
    async with session(
        engine=script(), settings=config(settings), has_playout=True, judges=guarded([0.9])
    ) as s:
        await talking(s)
        await s.say(np.concatenate([quiet(5), loud(3), quiet(6)]))
        assert s.names()[:1] == ["SpeechStarted"]
        assert s.one(events.Committed)


async def test_settings_that_come_in_a_pause_leave_the_turn_judged() -> None:
    judged = judges(complete=[1.0])
    async with session(settings=config(JUDGED), judges=judged) as s:
        await s.say(np.concatenate([quiet(5), loud(20), quiet(4)]))
        s.conversation.configure(config(dataclasses.replace(JUDGED, eagerness="low")))
        await s.say(quiet(7))
        assert s.all(events.SpeechStopped) == []
        await s.say(quiet(1))
        assert s.one(events.SpeechStopped)  # after 12 windows, 384 ms


async def test_who_plays_replies_by_himself_is_told_what_to_do_with_them() -> None:
    async with session(engine=script(), settings=config(JUDGED), judges=guarded([0.2])) as s:
        s.conversation.respond()
        await settle()
        s.forget()
        await s.say(np.concatenate([loud(4), quiet(12)]))
        assert [event.doubt for event in s.all(events.OutputDoubted)][:3] == [
            "duck",
            "hold",
            "resume",
        ]
        assert s.all(events.SpeechStarted) == []


@pytest.mark.parametrize(("gap_windows", "is_same_turn"), [(20, True), (50, False)])
async def test_who_was_cut_off_and_goes_on_is_judged_by_all_that_he_said(
    gap_windows: int, is_same_turn: bool
) -> None:
    judged = judges(complete=[1.0])
    async with session(settings=config(JUDGED), judges=judged) as s:
        await s.say(np.concatenate([quiet(5), loud(30), quiet(gap_windows)]))
        assert s.one(events.SpeechStopped)
        (first,) = judged.end_of_turn.heard
        await s.say(np.concatenate([loud(10), quiet(10)]))
        assert len(s.all(events.SpeechStopped)) == 2
        second = judged.end_of_turn.heard[1]
        assert (second > first + 10 * 512) == is_same_turn
