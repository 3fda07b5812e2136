"""The engine on a CUDA device: in float32 the CPU's greedy replies, in bfloat16 it speaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_rig import GREEDY, Collected, Rig
from oracle import Oracle
from test_engine import QUESTION, noise, opened, picture, user

from models.content import Audio, Image, Message
from models.encoding import WindowPolicy
from models.placement import ExpertWeights
from models.weights import load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MESSAGES: tuple[Message, ...] = (
    user(Audio(pcm=noise(1.7), frames=((0.0, picture(1)), (0.5, picture(2))))),
    user(Image(rgb=picture(3)), QUESTION),
)


def reply(
    oracle: Oracle,
    device: str,
    dtype: torch.dtype,
    *,
    experts: ExpertWeights = "full",
    by_steps: bool = False,
    **places: str,
) -> Collected:
    model = load_model(
        oracle.folder,
        oracle.config,
        device=torch.device(device),
        dtype=dtype,
        experts=experts,
        places={stage: torch.device(place) for stage, place in places.items()},
    )
    rig = opened(Rig(model, oracle, frames=8, windows=WindowPolicy(), by_steps=by_steps))
    for message in MESSAGES:
        rig.engine.append_message(1, message)
    return rig.ask(1, 1, GREEDY)


@pytest.mark.parametrize("by_steps", [False, True], ids=["plain", "by steps"])
def test_float32_equals_the_cpu(oracle: Oracle, by_steps: bool) -> None:
    on_gpu = reply(oracle, "cuda", torch.float32, by_steps=by_steps)
    on_cpu = reply(oracle, "cpu", torch.float32)
    assert on_gpu.ids == on_cpu.ids
    assert on_gpu.codes == on_cpu.codes
    np.testing.assert_allclose(on_gpu.pcm, on_cpu.pcm, atol=40)


@pytest.mark.parametrize("by_steps", [False, True], ids=["plain", "by steps"])
def test_bfloat16_speaks(oracle: Oracle, by_steps: bool) -> None:
    made = reply(oracle, "cuda", torch.bfloat16, by_steps=by_steps)
    assert len(made.ids) == 8
    assert 0.001 < np.abs(made.pcm / 32767).mean() < 0.9


@pytest.mark.parametrize(
    "places", [{"thinker": "cpu"}, {"talker": "cpu"}, {"code2wav": "cpu"}], ids=str
)
def test_a_stage_on_another_device_changes_nothing(oracle: Oracle, places: dict[str, str]) -> None:
    apart = reply(oracle, "cuda", torch.float32, **places)
    together = reply(oracle, "cpu", torch.float32)
    assert apart.ids == together.ids
    assert apart.codes == together.codes
    np.testing.assert_allclose(apart.pcm, together.pcm, atol=40)


@pytest.mark.parametrize("experts", ["int8", "fp8", "int4"])
def test_packed_experts_speak(oracle: Oracle, experts: ExpertWeights) -> None:
    made = reply(oracle, "cuda", torch.bfloat16, experts=experts)
    assert len(made.ids) == 8
    assert 0.001 < np.abs(made.pcm / 32767).mean() < 0.9
