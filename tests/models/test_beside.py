"""What two cores do at the same time comes out as by one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from engine_rig import load_for_engine
from oracle import Oracle
from test_batching import QUESTIONS, ask, rig_of
from test_engine import same_reply

from models import attention
from models.content import EngineEvent
from models.qwen3_omni.model import Qwen3Omni


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch, model: Qwen3Omni) -> set[str]:
    """Names of the threads that the thinker reads on."""
    found = set()
    read = model.thinker.read_spans

    def watched(*args: Any, **options: Any) -> Any:
        found.add(threading.current_thread().name)
        return read(*args, **options)

    monkeypatch.setattr(model.thinker, "read_spans", watched)
    return found


def test_a_reply_is_the_same_with_and_without_another_core(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, threads: set[str]
) -> None:
    replies = []
    for cores in (1, 2):
        monkeypatch.setattr("models.work.num_cores", lambda cores=cores: cores)
        threads.clear()
        rig = rig_of(model, oracle)
        ask(rig, 1, QUESTIONS[1])
        rig.drain()
        assert any(name.startswith("beside") for name in threads) == (cores == 2)
        replies.append(rig.replies[1])
    assert len(replies[0].codes) > 2
    same_reply(*replies)


def test_a_voice_that_fails_beside_its_text_is_the_replys_end(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the text came to meanwhile is not told, and the log is as it was before the reply."""
    monkeypatch.setattr("models.work.num_cores", lambda: 2)
    rig = rig_of(model, oracle)
    ask(rig, 1, QUESTIONS[0])
    before = rig.engine.log_ids(1)
    while 1 not in rig.replies or len(rig.replies[1].codes) < 2:
        rig.step()
    cache = rig.engine._contexts[1].talker_cache
    assert cache is not None
    cache.max_length = cache.length
    last: list[EngineEvent] = []
    while rig.replies[1].end is None:
        last = rig.step()
    rig.drain()
    end = rig.replies[1].end
    assert end is not None
    assert end.status == "failed"
    assert last == [end]
    assert rig.engine.log_ids(1)[: len(before)] == before
    assert rig.engine._contexts[1].thinker_cache.length <= len(rig.engine.log_ids(1))


@torch.inference_mode()
def test_a_long_past_is_read_by_two_cores_as_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (
        torch.randn(1, 2, size, 16, generator=generator) for size in (15, 70, 70)
    )
    bias = torch.zeros(15, 70).masked_fill_(torch.ones(15, 70).triu_(56).bool(), float("-inf"))
    whole = attention._attend_biased(queries, keys, values, bias)
    monkeypatch.setattr(attention, "MIN_SHARED_PRODUCTS", 1)
    for cores in (1, 2):
        monkeypatch.setattr("models.threads.num_cores", lambda cores=cores: cores)
        halves = attention._attend_biased(queries, keys, values, bias)
        torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-6)
