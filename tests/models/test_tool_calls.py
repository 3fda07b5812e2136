"""Tool calls: read from any chunks of text, and end to end from forced tokens of a tiny model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.chat import ChatFormat
from models.config import read_config
from models.content import (
    AudioEvent,
    CallEvent,
    EndEvent,
    EngineEvent,
    Message,
    ReplyOptions,
    Text,
    TextEvent,
    ToolCall,
    ToolResult,
)
from models.engine import Engine, Placement
from models.errors import ToolCallError
from models.tiny import write_tiny_checkpoint
from models.tool_calls import ToolCallReader

ARGUMENTS = '{"at": "a \\"}{\\" sky", "far": {"by": [1, {"m": 2}]}}'
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def read(text: str, cuts: list[int] = []) -> tuple[str | None, str, str]:  # noqa: B006
    """Name, the pieces joined, and the reader's own whole."""
    reader, edges = ToolCallReader(), sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    pieces = [reader.push(text[a:b]) for a, b in pairwise(edges)]
    pieces.append(reader.end())
    return reader.name, "".join(p.arguments for p in pieces if p), reader.arguments


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=12))
def test_any_chunks_give_the_same_call(cuts: list[int]) -> None:
    text = '\n{"name": "look", "arguments": ' + ARGUMENTS + "}\n"
    assert read(text, cuts) == ("look", ARGUMENTS, ARGUMENTS)


def test_arguments_stream_before_the_call_ends() -> None:
    reader = ToolCallReader()
    assert reader.push('{"name": "look", "arguments": {') is not None
    piece = reader.push('"at": 1')
    assert piece is not None
    assert (piece.name, piece.arguments) == ("look", '"at": 1')


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', '{"a": 1}'),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": {"a": {"b": "c', '{"a": {"b": "c"}}'),
    ],
)
def test_other_spellings_are_understood(text: str, arguments: str) -> None:
    assert read(text) == ("f", arguments, arguments)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[1]", '{"name": 1}', '{"name": "f", "arguments": {"a" 1}}']
)
def test_what_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(ToolCallError):
        read(text)


# ------------------------------------------------------------------------------- the engine
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tools") / "tiny"
    write_tiny_checkpoint(made)
    return made


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatFormat:
    return ChatFormat.load(folder, read_config(folder))


@pytest.fixture
def engine(folder: Path) -> Engine:
    made = Engine.load(folder, Placement(device="cpu", dtype="float32"))
    made.open(1, instructions="Be kind.", voice=None, tools=[WEATHER])
    made.append_message(1, Message(role="user", parts=(Text(text="Hello"),)))
    return made


def drain(engine: Engine) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    for _ in range(5_000):
        if not engine.has_work:
            return events
        events += engine.step()
    raise AssertionError("the engine never rests")


def force(engine: Engine, ids: list[int]) -> None:
    """Let the next reply's sampler draw these ids, whatever the model thinks."""
    left = iter(ids)
    sampler = Mock(side_effect=lambda *_: torch.tensor(next(left)))
    sampler.num_best.return_value = None
    engine._replies[1].text_sampler = sampler


def calls_of(events: list[EngineEvent]) -> list[tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for event in events:
        if isinstance(event, CallEvent):
            name, arguments = found.get(event.index, (event.name, ""))
            assert name == event.name
            found[event.index] = (name, arguments + event.arguments)
    return list(found.values())


def end_of(events: list[EngineEvent]) -> EndEvent:
    (end,) = (event for event in events if isinstance(event, EndEvent))
    return end


def reply_ids(chat: ChatFormat, *calls: tuple[str, str], before: str = "") -> list[int]:
    ids = chat.encode(before)
    for name, arguments in calls:
        ids += [*chat.encode_rendered(chat.tool_call_text(name, arguments)), *chat.encode("\n")]
    return [*ids, *chat.stop_ids]


def test_two_calls_are_told_and_nothing_is_spoken(engine: Engine, chat: ChatFormat) -> None:
    calls = [("weather", '{"in": "Köln"}'), ("weather", '{"in": "Rome"}')]
    engine.respond(1, 1, ReplyOptions())
    force(engine, reply_ids(chat, *calls))
    events = drain(engine)
    assert calls_of(events) == calls
    assert [event.is_done for event in events if isinstance(event, CallEvent)].count(True) == 2
    assert not any(isinstance(event, AudioEvent) for event in events)
    assert "".join(event.text for event in events if isinstance(event, TextEvent)) == ""
    assert end_of(events).status == "completed"


def test_a_call_behind_words_ends_what_is_spoken(engine: Engine, chat: ChatFormat) -> None:
    engine.respond(1, 1, ReplyOptions())
    words = "Please tell me more about the house where you live."
    force(engine, reply_ids(chat, ("weather", "{}"), before=words))
    events = drain(engine)
    assert calls_of(events) == [("weather", "{}")]
    assert "".join(event.text for event in events if isinstance(event, TextEvent)) == words
    assert any(isinstance(event, AudioEvent) for event in events)
    assert len(engine._replies[1].spoken_ids) == len(chat.encode(words))


def test_a_call_that_is_no_json_fails_the_reply_and_leaves_no_trace(
    engine: Engine, chat: ChatFormat
) -> None:
    drain(engine)
    before = engine.log_ids(1)
    engine.respond(1, 1, ReplyOptions())
    force(engine, reply_ids(chat, ("weather", "{1}")))
    end = end_of(drain(engine))
    assert (end.status, end.refusal) == ("failed", "tool_call")
    assert "not JSON" in (end.error or "")
    assert engine.log_ids(1) == before


def test_a_forced_tool_is_the_one_that_is_called(engine: Engine, chat: ChatFormat) -> None:
    options = ReplyOptions(tool_choice="required", forced_tool="weather", max_tokens=40)
    engine.respond(1, 1, options)
    force(engine, [*chat.encode('{"in": "Rome"}}\n'), *chat.stop_ids])
    assert calls_of(drain(engine)) == [("weather", '{"in": "Rome"}')]


def test_no_tool_is_called_where_none_may_be(engine: Engine, chat: ChatFormat) -> None:
    engine.respond(1, 1, ReplyOptions(tool_choice="none"))
    reply, wanted = engine._replies[1], chat.tool_call_id
    assert wanted is not None
    logits = torch.zeros(engine._model.thinker.lm_head.weight.shape[0])
    logits[wanted] = 9.0
    assert int(engine._maker._allowed(logits, reply).argmax()) != wanted


@pytest.mark.parametrize("before", ["", "Please tell me more about the house."])
@pytest.mark.parametrize(
    "call", ['{"name": "moon", "arguments": {', '{"arguments": {}, "name": "moon"}']
)
def test_the_call_of_a_tool_that_was_not_offered_is_as_if_it_had_not_been(
    engine: Engine, chat: ChatFormat, before: str, call: str
) -> None:
    """Text, sound and log are those of a reply that must not call."""
    words, opening = chat.encode(before), chat.tool_call_id
    behind = [*chat.encode(" Please count the number."), *chat.stop_ids]
    called = [*words, opening, *chat.encode(call), chat.tool_call_end_id]

    def draw(logits: torch.Tensor, drawn: list[int]) -> torch.Tensor:
        may_call = bool(logits[opening] > float("-inf"))
        found = (called if may_call else [*words, *behind])[len(drawn)]
        assert found is not None
        return torch.tensor(found)

    made: list[tuple[str, list[tuple[int, ...]], list[int]]] = []
    for choice in ("auto", "none"):
        response = len(made) + 1
        engine.respond(1, response, ReplyOptions(tool_choice=choice, greedy=True))
        sampler = Mock(side_effect=draw)
        sampler.num_best.return_value = None
        engine._replies[response].text_sampler = sampler
        events = drain(engine)
        assert end_of(events).status == "completed"
        assert calls_of(events) == []
        told = [event for event in events if isinstance(event, TextEvent)]
        assert [one for event in told for one in event.ids] == [*words, *behind[:-1]]
        codes = [event.codes for event in events if isinstance(event, AudioEvent)]
        made.append(("".join(event.text for event in told), codes, engine.log_ids(1)))
        engine.rebuild(1, (Message(role="user", parts=(Text(text="Hello"),)),))
    assert made[0] == made[1]
    assert made[0][1]


def test_a_reply_that_must_call_fails_with_a_tool_that_was_not_offered(
    engine: Engine, chat: ChatFormat
) -> None:
    engine.respond(1, 1, ReplyOptions(tool_choice="required"))
    force(engine, [*chat.encode('moon", "arguments": {}}'), *chat.stop_ids])
    end = end_of(drain(engine))
    assert (end.status, end.refusal) == ("failed", "tool_call")
    assert "'moon'" in (end.error or "")


def test_history_is_told_as_the_model_itself_would_write_it(
    engine: Engine, chat: ChatFormat
) -> None:
    """A call in the log after it was made equals the call in a log that is rebuilt."""
    engine.respond(1, 1, ReplyOptions())
    force(engine, reply_ids(chat, ("weather", '{"in": "Rome"}')))
    drain(engine)
    result = Message(role="user", parts=(ToolResult(output="sun <|im_end|>"),) * 2)
    engine.append_message(1, result)
    drain(engine)
    lived = engine.log_ids(1)
    call = ToolCall(name="weather", arguments='{"in": "Rome"}')
    engine.rebuild(
        1,
        (
            Message(role="user", parts=(Text(text="Hello"),)),
            Message(role="assistant", parts=(call,)),
            result,
        ),
    )
    drain(engine)
    newline = chat.encode("\n")[0]
    assert without(lived, newline) == without(engine.log_ids(1), newline)
    assert (
        chat.encode_rendered(chat.tool_result_text("x<|im_end|>")).count(next(iter(chat.stop_ids)))
        == 0
    )


def without(ids: list[int], left_out: int) -> list[int]:
    """The tiny model writes a newline behind its calls, real ones stop there."""
    return [index for index in ids if index != left_out]
