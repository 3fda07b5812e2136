"""Stages on devices of their own: nothing of one stage meets another's but where it crosses over.

Without a second device, tensors are PyTorch's fake ones: they have shapes, dtypes and a device's
name (`cpu:1`), no numbers, and an operation on tensors of two devices is the error that it is on a
GPU. Where the host reads numbers it gets zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_rig import GREEDY, Rig
from oracle import Oracle
from test_engine import QUESTION, noise, opened, picture, user
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)

from models.cache import KvCache
from models.cache_memory import DeviceMemory
from models.content import Audio, Image
from models.encoding import WindowPolicy
from models.errors import ResourceError
from models.feed_forward import ExpertMix
from models.placement import STAGES
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.vocoder import Code2Wav
from models.screened_head import ScreenedHead
from models.skeleton import skeleton
from models.weights import finish, take_memory

PLACES = {stage: torch.device("cpu", index) for index, stage in enumerate(STAGES, start=1)}


def zeros(tensor: FakeTensor) -> Any:
    return np.zeros(tensor.shape, np.int64).tolist()


@pytest.fixture
def apart(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Qwen3Omni]:
    """The oracle's model without numbers, each stage on a device of its own."""
    for name in ("tolist", "item", "__int__", "__bool__"):
        monkeypatch.setattr(FakeTensor, name, zeros)
    monkeypatch.setattr(FakeTensor, "__float__", lambda tensor: 0.0)
    monkeypatch.setattr(FakeTensor, "numpy", lambda tensor: np.zeros(tensor.shape, np.int16))
    made = torch.tensor

    def tensor(data: Any, *, device: torch.device | None = None, **more: Any) -> Tensor:
        """The true one forgets the number of a CPU."""
        known = made(data, **more)
        return torch.empty(known.shape, dtype=known.dtype, device=device or "cpu")

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(ExpertMix, "forward", ExpertMix.gathered)  # as on a GPU
    monkeypatch.setattr(ScreenedHead, "of", lambda head: None)
    monkeypatch.setattr("models.cache.cache_memory", DeviceMemory)
    monkeypatch.setattr("models.decode_step._is_plain", lambda weight: False)
    monkeypatch.setattr("models.work.num_cores", lambda: 1)
    model = skeleton(oracle.config, dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        take_memory(model, PLACES["thinker"], what="the model", places=PLACES)
        finish(model)
        yield model


def ask(model: Qwen3Omni, oracle: Oracle) -> Rig:
    rig = opened(Rig(model, oracle, frames=4, windows=WindowPolicy()))
    rig.engine.append_message(1, user(Audio(pcm=noise(1.7)), Image(rgb=picture(1)), QUESTION))
    rig.ask(1, 1, GREEDY)
    return rig


def test_a_reply_crosses_over(apart: Qwen3Omni, oracle: Oracle) -> None:
    rig = ask(apart, oracle)
    reply = rig.replies[1]
    assert reply.end is not None
    assert reply.end.error is None
    assert len(reply.ids) == 8
    assert len(reply.codes) == 3
    context = rig.engine._contexts[1]
    assert context.talker_cache is not None
    for cache, stage in ((context.thinker_cache, "thinker"), (context.talker_cache, "talker")):
        assert isinstance(cache, KvCache)
        assert {part.device for part in cache._memory.keys} == {PLACES[stage]}


@pytest.mark.parametrize(("stage", "mistaken_for"), [(Talker, "thinker"), (Code2Wav, "talker")])
def test_a_crossing_that_is_missing_is_noticed(
    apart: Qwen3Omni,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
    stage: type,
    mistaken_for: str,
) -> None:
    monkeypatch.setattr(stage, "device", PLACES[mistaken_for])
    with pytest.raises(FakeTensorDeviceMismatchError):
        ask(apart, oracle)


def test_work_by_steps_needs_one_device(apart: Qwen3Omni, oracle: Oracle) -> None:
    with pytest.raises(ResourceError, match="all of the model on one device"):
        Rig(apart, oracle, frames=4, windows=WindowPolicy(), by_steps=True)
