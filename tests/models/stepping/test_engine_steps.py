"""An engine that works by steps: what it says is the plain engine's, all its steps are built before
anybody waits for one, and its contexts share pages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_rig import Rig, load_for_engine
from oracle import Oracle
from recorded import Recorder
from test_engine import opened, same_reply, user

from models import cache_budget
from models.content import ReplyOptions, Text
from models.encoding import WindowPolicy
from models.engine_options import EngineOptions
from models.errors import RequestError
from models.graphs import Step
from models.qwen3_omni.model import Qwen3Omni
from models.stepping import engine_steps
from models.stepping.engine_steps import EngineSteps, prepared
from models.stepping.pages import PAGE_SIZE

QUESTIONS = ("1000 1001", "7 8 9 10 11 12 13")
LONG = " ".join(map(str, range(1000, 1000 + 3 * PAGE_SIZE)))


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


def rig_of(model: Qwen3Omni, oracle: Oracle, *, by_steps: bool = True, **options: Any) -> Rig:
    options = {"frames": 8, "max_context_tokens": 512, **options}
    return Rig(model, oracle, windows=WindowPolicy(), by_steps=by_steps, **options)


def steps_of(rig: Rig) -> EngineSteps:
    assert rig.engine._steps is not None
    return rig.engine._steps


def test_two_sessions_by_recorded_steps_equal_the_plain_engine(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step does the same operations at every call, as a graph of it would; and none is built
    in the middle of speech.
    """
    recorder, built = Recorder(), []

    def capture(step: Step) -> Step:
        built.append(step)
        return recorder(step)

    monkeypatch.setattr(engine_steps, "pick_capture", lambda device: capture)
    plain, stepped = (
        rig_of(model, oracle, by_steps=by, max_batch=2, frames=4) for by in (False, True)
    )
    assert len(built) == 2 + 2 + 2 + 2  # text; first frame; talker; frame: for 1 and 2 rows
    for rig in (plain, stepped):
        for key, question in enumerate(QUESTIONS):
            opened(rig, key).engine.append_message(key, user(Text(text=question)))
            rig.engine.respond(key, key, ReplyOptions(greedy=True, max_tokens=5))
        rig.drain()
    assert len(built) == 8
    assert recorder.num_replays > 8
    for key in (0, 1):
        assert len(stepped.replies[key].codes) > 2
        same_reply(stepped.replies[key], plain.replies[key])


def test_drawn_text_is_a_replys_own_whoever_speaks_beside_it(
    model: Qwen3Omni, oracle: Oracle
) -> None:
    """The seed alone says it. A penalty, which no step draws by, is the host's beside it."""
    drawn = ReplyOptions(audio=False, max_tokens=12, temperature=1.5, top_p=0.95, seed=7)
    texts = []
    for keys in ((0,), (0, 1, 2)):
        rig = rig_of(model, oracle, max_batch=4)
        for key in keys:
            opened(rig, key).engine.append_message(key, user(Text(text=QUESTIONS[0])))
            options = drawn if key == 0 else replace(drawn, seed=key, greedy=key == 2)
            rig.engine.respond(key, key, options)
            if key == 1:
                sampler = rig.engine._replies[key].text_sampler
                sampler.settings = replace(sampler.settings, repetition_penalty=1.3)
        rig.drain()
        texts.append(rig.replies[0].text)
    assert texts[0] == texts[1]
    assert len({rig.replies[key].text for key in (0, 1, 2)}) == 3
    greedy = rig_of(model, oracle, by_steps=False)
    opened(greedy, 2).engine.append_message(2, user(Text(text=QUESTIONS[0])))
    greedy.ask(2, 2, replace(drawn, greedy=True))
    assert greedy.replies[2].text == rig.replies[2].text


def test_a_context_holds_the_pages_that_its_tokens_need(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = opened(rig_of(model, oracle))
    free = [table.pool.num_free for table in steps_of(rig).tables]
    rig.engine.append_message(1, user(Text(text=LONG)))
    rig.drain()
    context = rig.engine._contexts[1]
    lengths = (len(context.log), context.log.talker_length)
    held = [
        before - table.pool.num_free
        for before, table in zip(free, steps_of(rig).tables, strict=True)
    ]
    assert held == [-(-length // PAGE_SIZE) for length in lengths]
    assert context.cache_bytes == sum(
        pages * table.pool.page_bytes
        for pages, table in zip(held, steps_of(rig).tables, strict=True)
    )
    rig.engine.close(1)
    assert [table.pool.num_free for table in steps_of(rig).tables] == free


def test_pages_are_taken_from_the_ends_of_those_who_rest(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three sessions where two fit: each goes on as if there had been room."""
    monkeypatch.setattr(cache_budget, "GIVEN_UP_TOKENS", PAGE_SIZE)
    plain = rig_of(model, oracle, by_steps=False)
    bytes_each = sum(table.pool.page_bytes for table in steps_of(rig_of(model, oracle)).tables)
    stepped = rig_of(model, oracle, max_cache_bytes=9 * bytes_each)
    for turn, text in ((0, LONG), (10, "1000 1001")):
        for key in (1, 2, 3):
            for rig in (plain, stepped):
                if turn == 0:
                    opened(rig, key)
                rig.engine.append_message(key, user(Text(text=text)))
                rig.ask(key, turn + key, ReplyOptions(greedy=True, max_tokens=4))
            same_reply(stepped.replies[turn + key], plain.replies[turn + key])
            if turn == 0 and key == 3:
                first, second, _ = stepped.engine._contexts.values()
                assert first.is_resting
                assert not second.is_resting
                assert first.thinker_cache.length == PAGE_SIZE


def broken() -> EngineSteps:
    raise RuntimeError("no kernel image\nfor this device")


def test_where_steps_can_not_be_had_the_engine_works_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert prepared(broken, gpu, by_steps=None) is None
    assert caplog.messages == ["works without graphs, slower: no kernel image"]
    with pytest.raises(RuntimeError, match="no kernel"):
        prepared(broken, gpu, by_steps=True)
    assert prepared(broken, cpu, by_steps=None) is None
    assert prepared(broken, gpu, by_steps=False) is None
    assert len(caplog.messages) == 1


def test_more_sessions_go_together_on_a_gpu() -> None:
    usual, two = EngineOptions(), EngineOptions(max_batch=2)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [options.batch_on(on) for options in (usual, two) for on in (gpu, cpu)] == [32, 8, 2, 2]
    for number in (0, 33):
        with pytest.raises(RequestError, match="1 to 32"):
            EngineOptions(max_batch=number)
