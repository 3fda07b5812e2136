"""A full context: the oldest items leave it, in one go, and the conversation goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from fake_session import Session, config, session, settle

from pipeline import events
from pipeline.history import History
from pipeline.items import CallContent, Item, OutputContent, SpeechContent, TextContent
from pipeline.messages import EngineReady, Usage
from pipeline.overflow import ContextRoom
from pipeline.session_config import Truncation


class SmallEngine(FakeEngine):
    """Its context holds so many tokens."""

    max_tokens = 200

    async def ready(self) -> EngineReady:
        return replace(await super().ready(), max_context_tokens=self.max_tokens)


def text(number: int, tokens: int = 20) -> Item:
    content = TextContent(text=f"{number}".ljust(4 * tokens, "."))
    return Item(id=f"i{number}", role="user", content=[content])


def story(s: Session) -> list[str]:
    return [entry.split(".")[0] for entry in s.engine.context.story]


def talk(truncation: Truncation | None, **fields: Any) -> Any:
    return session(engine=SmallEngine(), settings=config(None, truncation=truncation, **fields))


async def test_the_oldest_leave_the_context_and_stay_in_the_list() -> None:
    async with talk(Truncation(retention_ratio=0.5)) as s:
        for number in range(8):
            s.conversation.create_item(text(number))
        await settle()
        # seven items of 25 tokens are 175; the eighth is over 180, and 100 may stay
        assert story(s) == ["user: 4", "user: 5", "user: 6", "user: 7"]
        assert s.conversation.get_item("i0") is not None
        assert s.engine.context.calls.count("rebuild") == 1, (
            "one loss of the caches, not one a turn"
        )
        s.conversation.create_item(text(8))
        assert story(s)[-1] == "user: 8"
        assert s.engine.context.calls.count("rebuild") == 1
        assert not s.all(events.Failed)


async def test_switched_off_everything_stays() -> None:
    async with talk(None) as s:
        for number in range(20):
            s.conversation.create_item(text(number))
        assert len(story(s)) == 20


async def test_a_smaller_limit_behind_the_instructions() -> None:
    small = Truncation(retention_ratio=0.5, post_instructions_tokens=48)
    async with talk(small) as s:
        for number in range(4):
            s.conversation.create_item(text(number))
        assert story(s) == ["user: 3"], (
            "two are over nine tenths of the limit, and half of it may stay"
        )


async def test_a_new_engine_is_told_only_what_is_remembered() -> None:
    async with talk(Truncation(retention_ratio=0.5)) as s:
        for number in range(8):
            s.conversation.create_item(text(number))
        s.engine.die()
        await settle()
        s.engine.revive()
        await settle()
        assert story(s) == ["user: 4", "user: 5", "user: 6", "user: 7"]


def test_the_engines_count_corrects_the_estimate() -> None:
    history, room = History(), ContextRoom()
    for number in range(4):
        history.append(text(number))
    room.max_tokens = 200
    auto = config(None)
    assert not room.make(history, auto)
    room.learn(Usage(input_text_tokens=190), history)
    assert room.make(history, auto)
    assert [entry.item.id for entry in history.remembered] == ["i1", "i2", "i3"]


def test_no_answer_without_its_call_and_never_the_newest() -> None:
    history, room = History(), ContextRoom()
    call = CallContent(name="f", call_id="c", arguments="{}" + " " * 400)
    history.append(Item(id="call", role="assistant", content=[call]))
    history.append(
        Item(id="answer", role="user", content=[OutputContent(call_id="c", output="sunny")])
    )
    speech = SpeechContent(pcm=np.zeros(16_000 * 60, np.float32))
    history.append(Item(id="speech", role="user", content=[speech]))
    room.max_tokens = 100
    assert room.make(history, config(None))
    assert [entry.item.id for entry in history.remembered] == ["speech"]
    assert not room.make(history, config(None))


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_extremes(ratio: float) -> None:
    history, room = History(), ContextRoom()
    for number in range(8):
        history.append(text(number))
    room.max_tokens = 200
    assert room.make(history, config(None, truncation=Truncation(retention_ratio=ratio)))
    assert len(history.remembered) == (1 if ratio == 0 else 7)
