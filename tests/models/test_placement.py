"""Where a model is asked to lie: the commands' flags, and what is refused."""

from __future__ import annotations

import argparse

import pytest
import torch
from oracle import Oracle

from models.commands.placement import add_placement, placement_of
from models.errors import RequestError, ResourceError
from models.loading import load_placed, place
from models.memory_plan import device_bytes
from models.placement import Placement


def parsed(*flags: str) -> Placement:
    parser = argparse.ArgumentParser()
    add_placement(parser)
    return placement_of(parser.parse_args(flags))


def test_flags() -> None:
    assert parsed() == Placement()
    made = parsed(
        "--device", "cuda:0", "--experts", "int4", "--devices", "talker=cuda:1, code2wav=cpu"
    )
    assert made == Placement(
        device="cuda:0", experts="int4", devices={"talker": "cuda:1", "code2wav": "cpu"}
    )
    with pytest.raises(RequestError, match="give STAGE=DEVICE"):
        parsed("--devices", "cuda:1")


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (Placement(devices={"vocoder": "cpu"}), "unknown stage 'vocoder'"),
        (Placement(devices={"talker": "cuda:77"}), "no device 'cuda:77'"),
        (Placement(device="tpu"), "unknown device 'tpu'"),
        (Placement(dtype="int3"), "unknown dtype"),
        (Placement(experts="int3"), "unknown experts"),
    ],
)
def test_what_is_not_there_is_told(oracle: Oracle, placement: Placement, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        load_placed(oracle.folder, oracle.config, placement)


def test_what_does_not_fit_is_told_with_what_would(
    oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(free_bytes: int, **names: str) -> str:
        monkeypatch.setattr("models.devices.cpu_memory", lambda: (2**40, free_bytes))
        with pytest.raises(ResourceError) as caught:
            load_placed(oracle.folder, oracle.config, Placement(device="cpu", **names))
        return str(caught.value)

    def need(**names: str) -> int:
        placed = place(oracle.config, Placement(device="cpu", **names))
        return device_bytes(placed.plan, placed.places, torch.device("cpu"))

    assert "are needed on cpu (thinker " in fault(need() - 1)
    assert fault(need() - 1).endswith("it would fit with dtype = bfloat16")
    small = need(dtype="bfloat16")
    assert fault(small).endswith("it would fit with dtype = bfloat16")
    assert fault(small - 1).endswith("it would fit with dtype = bfloat16 and experts = int8")
    assert fault(small - 1, dtype="float16").endswith("it would fit with experts = int8")
    assert "no dtype and no packing of experts makes it fit" in fault(1000)


def test_all_stages_on_the_cpu_by_name(oracle: Oracle) -> None:
    devices = dict.fromkeys(("thinker", "talker", "code2wav"), "cpu")
    model = load_placed(oracle.folder, oracle.config, Placement(devices=devices))
    assert {parameter.device for parameter in model.parameters()} == {torch.device("cpu")}
    assert {buffer.device for buffer in model.buffers()} == {torch.device("cpu")}
