"""Replies begun at the tentative end of a turn: never heard too early, never leaving a trace."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine, Script
from fake_session import TURNS, Session, config, loud, quiet, session, settle
from scripted_judges import judges

from pipeline import endpointing, events
from pipeline.errors import BadInputError
from pipeline.items import Item, TextContent

JUDGED = dataclasses.replace(TURNS, eagerness="auto", tentative_ms=128, speculates=True)
PLAIN = dataclasses.replace(JUDGED, speculates=False)
# one turn with a pause inside: 8 windows of silence, then 10 that end it
PAUSING = np.concatenate([quiet(4), loud(10), quiet(8), loud(6), quiet(10)])
DOUBTED = [0.5, 1.0]  # what the judge thinks of that


def outcome(s: Session) -> Any:
    """All that an owner and an engine are left with, ids apart."""
    told = [
        (type(event).__name__, getattr(event, "audio_start_ms", getattr(event, "audio_end_ms", 0)))
        for event in s.everything
        if not isinstance(event, events.TurnMetrics | events.Speculated | events.StateChanged)
    ]
    items = [
        [getattr(part, "transcript", None), getattr(part, "pcm", None)]
        for event in s.all(events.ItemDone)
        for part in event.item.content
    ]
    sound = [np.concatenate(p) if isinstance(p, list) else p for _, p in items]
    return told, [text for text, _ in items], [p.tolist() for p in sound], s.engine.context.story


@pytest.mark.parametrize("pcm", [PAUSING, PAUSING[:13_000], np.concatenate([PAUSING, PAUSING])])
async def test_the_outcome_is_the_same_as_without(pcm: Any) -> None:
    found = []
    for turns in (JUDGED, PLAIN):
        said = judges(complete=[*DOUBTED, *DOUBTED])
        async with session(settings=config(turns), judges=said) as s:
            await s.say(pcm)
            found.append(outcome(s))
    assert found[0] == found[1]


async def test_nothing_is_told_before_the_end_is_sure() -> None:
    async with session(settings=config(JUDGED), judges=judges()) as s:
        await s.say(np.concatenate([quiet(4), loud(10), quiet(4)]))
        assert s.engine.response.is_speculative
        assert s.names() == ["SpeechStarted"]
        await s.say(quiet(2))
        assert s.engine.context.calls.count("respond") == 1
        assert "confirm" in s.engine.context.calls
        assert s.one(events.Speculated).is_kept
        finished = s.one(events.ResponseFinished)
        assert finished.item.content[0].transcript == "One two three four"
        # 300 ms of padding do not exist before the first sample; 128 ms of silence are handed over
        assert s.engine.context.story[0] == f"user: <{(3 + 10 + 4) * 0.032:.3f} s>"


async def test_who_goes_on_speaks_into_the_same_turn() -> None:
    async with session(settings=config(JUDGED), judges=judges(complete=DOUBTED)) as s:
        await s.say(PAUSING)
        dropped, kept = s.engine.responses
        assert dropped.is_cancelled
        assert dropped.is_speculative
        assert kept.said == "One two three four"
        calls = [c for c in s.engine.context.calls if c != "append_audio"]
        assert calls[calls.index("cancel") + 1] == "rollback"
        in_vain, worth = sorted(s.all(events.Speculated), key=lambda event: event.is_kept)
        assert (in_vain.is_kept, in_vain.audio_tokens) == (False, 4)
        assert worth.is_kept
        assert len(s.all(events.SpeechStarted)) == 1
        assert s.engine.context.story == [
            f"user: <{(3 + 10 + 8 + 6 + 4) * 0.032:.3f} s>",
            "assistant: One two three four",
        ]


async def test_the_judge_sets_how_long_silence_must_last() -> None:
    async with session(settings=config(JUDGED), judges=judges(complete=[0.0])) as s:
        await s.say(np.concatenate([loud(10), quiet(36)]))
        assert "SpeechStopped" not in s.names()
        await s.say(quiet(2))
        assert "SpeechStopped" in s.names()


async def test_a_reply_is_begun_no_sooner_than_it_can_be_needed() -> None:
    async with session(settings=config(JUDGED), judges=judges(complete=[0.0])) as s:
        lead = endpointing.LEAD_MS // 32
        wait = endpointing.WAITS["auto"].doubtful_ms // 32
        await s.say(np.concatenate([loud(10), quiet(wait - lead - 1)]))
        assert s.engine.responses == []
        await s.say(quiet(2))
        assert s.engine.response.is_speculative
        assert "SpeechStopped" not in s.names()
        await s.say(quiet(lead))
        assert "confirm" in s.engine.context.calls
        assert s.one(events.Speculated).is_kept


@pytest.mark.parametrize(
    "what", ["typed", "deleted", "asked", "cleared", "committed", "instructed"]
)
async def test_what_comes_between_takes_it_back(what: str) -> None:
    turns = dataclasses.replace(JUDGED)
    async with session(settings=config(turns), judges=judges(complete=[0.5])) as s:
        hello = Item(id="hello", role="user", content=[TextContent(text="hello")])
        s.conversation.create_item(hello)
        await s.say(np.concatenate([quiet(4), loud(10), quiet(5)]))
        begun = s.engine.response
        assert begun.is_speculative
        typed = Item(id="typed", role="user", content=[TextContent(text="more")])
        story = {
            "typed": ["user: hello", "user: more", "user: <0.640 s>"],
            "deleted": ["user: <0.640 s>"],
            "asked": ["user: hello", "assistant: One two three four", "user: <0.640 s>"],
            "cleared": ["user: hello"],
            "committed": ["user: hello", "user: <0.576 s>"],
            "instructed": ["user: hello", "user: <0.640 s>"],
        }[what]
        match what:
            case "typed":
                s.conversation.create_item(typed)
            case "deleted":
                s.conversation.delete_item("hello")
            case "asked":
                s.conversation.respond()
            case "cleared":
                s.conversation.clear_input()
            case "committed":
                s.conversation.commit()
            case "instructed":
                s.conversation.configure(config(turns, max_output_tokens=3))
        await settle()
        if what not in ("cleared", "committed"):
            await s.say(loud(2))  # the user goes on
        assert begun.is_cancelled
        assert s.engine.context.story == story
        assert not s.one(events.Speculated).is_kept


async def test_an_engine_that_dies_meanwhile_is_told_everything_anew() -> None:
    async with session(settings=config(JUDGED), judges=judges(complete=[0.5])) as s:
        await s.say(np.concatenate([quiet(4), loud(10), quiet(5)]))
        s.engine.die()
        await settle()
        await s.say(quiet(20))
        assert s.one(events.ResponseFinished).status == "completed"
        assert s.engine.context.story[-1] == "assistant: One two three four"
        assert s.all(events.Speculated) == []


async def test_no_second_reply_beside_the_one_being_made() -> None:
    engine = FakeEngine(Script(holds_at=2))
    turns = dataclasses.replace(JUDGED, interrupt_response=False)
    async with session(engine=engine, settings=config(turns), judges=judges()) as s:
        s.conversation.respond()
        await settle()
        await s.say(np.concatenate([quiet(4), loud(10), quiet(10)]))
        assert len(engine.responses) == 1
        with pytest.raises(BadInputError):
            s.conversation.respond()
        engine.response.go_on()
        await settle()
        engine.response.go_on()
        await settle()
        assert len(engine.responses) == 2


async def test_push_to_talk_knows_nothing_of_it() -> None:
    async with session(settings=config(None), judges=judges()) as s:
        await s.say(PAUSING)
        assert s.engine.responses == []
        s.conversation.commit()
        s.conversation.respond()
        await settle()
        assert s.one(events.ResponseFinished).status == "completed"
        assert s.all(events.Speculated) == []
