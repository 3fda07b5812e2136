"""Replies whose text is given (scripts), and replies that end where the caller wants (stops), or
that can not be made of what was asked.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_rig import GREEDY, Collected, Rig, load_for_engine
from hypothesis import given
from hypothesis import strategies as st
from oracle import Oracle

from models.content import Image, Message, ReplyOptions, Text
from models.encoding import WindowPolicy
from models.qwen3_omni.model import Qwen3Omni
from models.stops import StopSearch

QUESTION = Message(role="user", parts=(Text(text="1000 1001 1002 1003"),))


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


@pytest.fixture
def rig(model: Qwen3Omni, oracle: Oracle) -> Rig:
    rig = Rig(model, oracle, frames=16, windows=WindowPolicy())
    for context in (1, 2):
        rig.engine.open(context, instructions="2610 525 264", voice=None)
        rig.engine.append_message(context, QUESTION)
    return rig


def script(text: str, **options: object) -> ReplyOptions:
    return replace(GREEDY, script=text, **options)  # type: ignore[arg-type]


def same_voice(one: Collected, other: Collected) -> None:
    assert one.codes
    assert one.codes == other.codes
    np.testing.assert_array_equal(one.pcm, other.pcm)


# ------------------------------------------------------------------ scripts
def test_a_script_sounds_like_the_same_text_when_it_is_written(rig: Rig) -> None:
    written = rig.ask(1, 1)  # cut at its 8th token, which is not spoken
    spoken = written.ids[:-1]
    given_text = rig.ask(2, 2, script(" ".join(map(str, spoken))))
    assert given_text.ids == spoken
    same_voice(written, given_text)
    assert given_text.end is not None
    assert given_text.end.status == "completed"
    assert given_text.end.usage.output_text_tokens == len(spoken)


def test_a_script_is_remembered_like_a_message_of_the_assistant(rig: Rig) -> None:
    rig.ask(1, 1, script("1010 1011 1012"))
    said = Message(role="assistant", parts=(Text(text="1010 1011 1012"),))
    rig.engine.append_message(2, said)
    for context in (1, 2):
        rig.engine.append_message(context, QUESTION)
    after_script, after_message = rig.ask(1, 3), rig.ask(2, 4)
    assert rig.engine.log_ids(1) == rig.engine.log_ids(2)
    assert after_script.ids == after_message.ids
    same_voice(after_script, after_message)


def test_a_script_knows_no_limit_and_no_end_token(rig: Rig) -> None:
    end = sorted(rig.engine._maker._generation.thinker.eos_ids)[0]
    reply = rig.ask(1, 1, script(f"1010 {end} 1011", max_tokens=1))
    assert reply.ids == [1010, end, 1011]
    assert reply.end is not None
    assert reply.end.status == "completed"


def test_an_empty_script_says_nothing(rig: Rig) -> None:
    reply = rig.ask(1, 1, script(""))
    assert (reply.ids, reply.codes) == ([], [])
    assert reply.end is not None
    assert reply.end.status == "completed"


# ------------------------------------------------------------------ stops
def test_a_stop_ends_text_and_voice_before_it(rig: Rig) -> None:
    whole = rig.ask(1, 1)
    words = whole.text.split()
    stop = f"{words[1]} {words[2]}"  # known when the third token is there
    stopped = rig.ask(2, 2, replace(GREEDY, stop=(stop,)))
    assert stopped.text.split() == words[:1]
    assert stopped.end is not None
    assert stopped.end.status == "completed"
    assert stopped.end.usage.output_text_tokens == 3
    rig.engine.open(3, instructions="2610 525 264", voice=None)
    rig.engine.append_message(3, QUESTION)
    same_voice(stopped, rig.ask(3, 3, script(words[0])))


def test_a_stop_that_never_comes_changes_nothing(rig: Rig) -> None:
    whole = rig.ask(1, 1)
    almost = f"{whole.text.split()[3]} 7"
    other = rig.ask(2, 2, replace(GREEDY, stop=(almost, "never")))
    assert other.text == whole.text
    same_voice(whole, other)


def test_a_stop_at_once_leaves_nothing_to_say(rig: Rig) -> None:
    reply = rig.ask(2, 2, replace(GREEDY, stop=("1", "2", "3", "4", "5", "6", "7", "8", "9", "0")))
    assert (reply.text, reply.codes) == ("", [])
    assert reply.end is not None
    assert reply.end.status == "completed"


TEXTS = st.text(alphabet="ab", max_size=12)


@given(pieces=st.lists(TEXTS), stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4)))
def test_any_pieces_of_a_text_stop_at_the_same_place(pieces: list[str], stops: list[str]) -> None:
    search = StopSearch(stops)
    shown = "".join(search.push(piece) for piece in pieces) + search.flush()
    # the first stop to be complete decides; of those that end together, the longest
    whole = "".join(pieces)
    ends = [
        (end, len(stop))
        for end in range(len(whole) + 1)
        for stop in stops
        if whole[:end].endswith(stop)
    ]
    if not ends:
        assert (shown, search.is_hit) == (whole, False)
        return
    assert search.is_hit
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert any(whole[len(shown) :].startswith(stop) for stop in stops)


# ------------------------------------------------------------------ whose fault a failure is
def test_what_can_not_be_shown_is_the_callers_fault(rig: Rig) -> None:
    thin = Image(rgb=np.zeros((1, 3000, 3), np.uint8))
    rig.engine.append_message(1, Message(role="user", parts=(thin,)))
    for response, drains in ((1, False), (2, True)):
        if drains:  # the fault is known before somebody asks for a reply
            rig.engine.append_message(1, Message(role="user", parts=(thin,)))
            rig.drain()
        end = rig.ask(1, response).end
        assert end is not None
        assert (end.status, end.refusal) == ("failed", "request")
        assert end.error is not None
        assert "too long and thin" in end.error


def test_a_conversation_that_is_too_long_is_told_apart(rig: Rig) -> None:
    context = rig.engine._contexts[1]
    context.max_tokens = len(context.log) + 20
    rig.engine.append_message(1, Message(role="user", parts=(Text(text="1000 " * 50),)))
    end = rig.ask(1, 1).end
    assert end is not None
    assert (end.status, end.refusal) == ("failed", "context_full")
