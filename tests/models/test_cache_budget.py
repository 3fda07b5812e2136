"""Contexts that rest give up their caches when memory runs short, and nobody can tell."""

from __future__ import annotations

import pytest
from engine_rig import GREEDY, Rig, load_for_engine
from oracle import Oracle
from test_engine import make_rig, noise, opened, same_reply, user

from models.content import Text
from models.qwen3_omni.model import Qwen3Omni


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


def two_turns(rig: Rig, context: int, *, between: int | None = None) -> None:
    """A turn with speech, then (with another context used between) a typed one."""
    engine = opened(rig, context).engine
    engine.begin_speech(context, has_camera=False)
    engine.append_audio(context, noise(1.3, seed=context))
    engine.end_speech(context)
    rig.ask(context, 10 * context)
    if between is not None:
        opened(rig, between).engine.append_message(between, user(Text(text="1004")))
        rig.drain()
    engine.append_message(context, user(Text(text="1000 1001")))
    rig.ask(context, 10 * context + 1)


def test_a_reply_after_the_caches_were_given_up_is_the_same(
    model: Qwen3Omni, oracle: Oracle
) -> None:
    roomy, short = make_rig(model, oracle), make_rig(model, oracle)
    two_turns(roomy, 1)
    short.engine._budget.max_bytes = 1
    two_turns(short, 1, between=2)
    for response in (10, 11):
        same_reply(short.replies[response], roomy.replies[response])
    ends = [rig.replies[11].end for rig in (roomy, short)]
    lefts = [end.stages.tokens_left for end in ends if end is not None]
    assert lefts[1] > lefts[0]  # the whole log was prefilled again, and it is told


def test_the_longest_unused_goes_first_and_only_as_many_as_must(
    model: Qwen3Omni, oracle: Oracle
) -> None:
    rig = make_rig(model, oracle)
    for context in (1, 2, 3):
        opened(rig, context)
        rig.drain()
    contexts, budget = rig.engine._contexts, rig.engine._budget
    rig.engine.append_message(1, user(Text(text="1000")))
    rig.drain()
    first, last = contexts[1].cache_bytes, contexts[3].cache_bytes
    budget.max_bytes = first + last
    budget.at_work = 3
    assert budget.enforce(contexts) == [2]
    assert contexts[2].cache_bytes == 0
    assert not rig.engine.has_work
    budget.max_bytes = 1
    assert budget.enforce(contexts) == [1]
    assert contexts[3].cache_bytes == last


def test_who_is_being_answered_keeps_its_caches(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = make_rig(model, oracle)
    opened(rig, 1).engine.append_message(1, user(Text(text="1000")))
    rig.engine.respond(1, 1, GREEDY)
    rig.step()
    rig.engine._budget.max_bytes = 1
    rig.engine._budget.at_work = None
    assert rig.engine._budget.enforce(rig.engine._contexts) == []
