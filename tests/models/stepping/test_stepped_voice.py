"""An engine that speaks by steps says what the plain engine says, and frees what a reply held."""

from __future__ import annotations

import numpy as np
import pytest
from engine_rig import GREEDY, Rig, load_for_engine
from oracle import Oracle
from test_engine import QUESTION, opened, user

from models.content import ReplyOptions
from models.encoding import WindowPolicy
from models.qwen3_omni.model import Qwen3Omni
from models.stepping import stepped_voice


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


def rig_of(model: Qwen3Omni, oracle: Oracle, *, by_steps: bool) -> Rig:
    rig = Rig(
        model,
        oracle,
        frames=8,
        windows=WindowPolicy(),
        by_steps=by_steps,
        max_context_tokens=256,
    )
    return opened(rig)


def free_pages(rig: Rig) -> list[int]:
    """Of the thinker and of the talker."""
    assert rig.engine._steps is not None
    return [table.pool.num_free for table in rig.engine._steps.tables]


def test_two_turns_equal_the_plain_engine(model: Qwen3Omni, oracle: Oracle) -> None:
    plain, stepped = (rig_of(model, oracle, by_steps=by_steps) for by_steps in (False, True))
    free = free_pages(stepped)
    for turn in (1, 2):
        for rig in (plain, stepped):
            rig.engine.append_message(1, user(QUESTION))
            rig.ask(1, turn)
        expected, made = plain.replies[turn], stepped.replies[turn]
        assert made.ids == expected.ids
        assert made.codes == expected.codes
        assert len(made.codes) > 2
        np.testing.assert_allclose(made.pcm, expected.pcm, atol=8)
    assert all(now < before for now, before in zip(free_pages(stepped), free, strict=True))
    stepped.engine.close(1)
    assert free_pages(stepped) == free


def test_draws_follow_the_seed(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = rig_of(model, oracle, by_steps=True)
    for response, seed in ((1, 7), (2, 7), (3, 8)):
        rig.engine.open(10 + response, instructions="", voice=None)
        rig.engine.append_message(10 + response, user(QUESTION))
        rig.ask(10 + response, response, ReplyOptions(seed=seed, max_tokens=8))
    assert rig.replies[1].codes == rig.replies[2].codes != rig.replies[3].codes


def test_without_a_free_slot_a_reply_speaks_plainly(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepped_voice, "NUM_SLOTS", 1)
    rig = rig_of(model, oracle, by_steps=True)
    rig.engine.append_message(1, user(QUESTION))
    assert len(rig.ask(1, 1, GREEDY).codes) > 2


def test_a_cancelled_reply_lets_its_slot_go(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = rig_of(model, oracle, by_steps=True)
    assert rig.engine._steps is not None
    assert rig.engine._steps.voices is not None
    slots = rig.engine._steps.voices.slots
    rig.engine.append_message(1, user(QUESTION))
    free = len(slots._free)
    rig.engine.respond(1, 1, GREEDY)
    while not rig.replies or not rig.replies[1].codes:
        rig.step()
    assert len(slots._free) < free
    rig.engine.cancel(1)
    rig.drain()
    assert len(slots._free) == free
