"""The memory plan: the published model beside a device's memory, and the tiny one as allocated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from oracle import Oracle

from models.cache import KvCache
from models.config import OmniConfig, parse_config
from models.errors import ResourceError
from models.memory_plan import (
    WORKSPACE_BYTES,
    device_bytes,
    kv_bytes_per_token,
    place_stages,
    plan_memory,
    shortage,
    spread_stages,
)
from models.placement import STAGES, ExpertWeights
from models.qwen3_omni.model import Qwen3Omni
from models.stepping.pages import PagePool, PageTable
from models.stepping.speech_slots import SpeechSlots

DATA = Path(__file__).parent / "data"
CPU = torch.device("cpu")
GB = 10**9
EXPERTS: tuple[ExpertWeights, ...] = ("full", "int8", "int4")
CARD_OF_80_GB = 78 * 2**30  # what such a card offers, about


@pytest.fixture(scope="module")
def published() -> OmniConfig:
    text = (DATA / "qwen3_omni_30b_config.json").read_text(encoding="utf-8")
    return parse_config(json.loads(text))


def test_the_published_model_with_eight_sessions_fits_80_gb(published: OmniConfig) -> None:
    plan = plan_memory(published, num_sessions=8, context_tokens=8192, dtype=torch.bfloat16)
    total = sum(stage.total for stage in plan.values())
    assert 70 * GB < sum(stage.weights for stage in plan.values()) < 72 * GB
    assert plan["thinker"].caches == 8 * 8192 * 48 * 2 * 4 * 128 * 2
    assert total < 80 * GB
    everything = dict.fromkeys(STAGES, CPU)
    assert total + WORKSPACE_BYTES < CARD_OF_80_GB
    assert shortage(plan, everything, {CPU: CARD_OF_80_GB}) is None
    lack = shortage(plan, everything, {CPU: 72 * GB})
    assert lack is not None
    assert re.search(r"needed on cpu \(thinker .*, talker .*, code2wav", lack)


def test_stages_on_devices_of_their_own(published: OmniConfig) -> None:
    plan = plan_memory(published, num_sessions=8, context_tokens=8192, dtype=torch.bfloat16)
    meta = torch.device("meta")
    places = {**dict.fromkeys(STAGES, CPU), "thinker": meta}
    assert shortage(plan, places, {meta: 78 * GB, CPU: 14 * GB}) is None
    lack = shortage(plan, places, {meta: 78 * GB, CPU: 8 * GB})
    assert lack is not None
    assert re.search(r"needed on cpu \(talker .*, code2wav", lack)


def test_packed_experts_fit_smaller_cards(published: OmniConfig) -> None:
    """Two conversations of 8192 tokens, libraries included."""
    card = torch.device("cuda")
    everything = dict.fromkeys(STAGES, card)
    need = {}
    for experts in EXPERTS:
        plan = plan_memory(
            published,
            num_sessions=2,
            context_tokens=8192,
            dtype=torch.bfloat16,
            experts=experts,
        )
        need[experts] = device_bytes(plan, everything, card)
    assert need["int4"] < 34 * GB < 44 * GB < need["int8"] < 48 * GB < 75 * GB < need["full"]


def test_speech_goes_to_a_second_device_where_the_first_is_too_small(
    published: OmniConfig,
) -> None:
    plan = plan_memory(published, num_sessions=1, context_tokens=8192, dtype=torch.bfloat16)
    first, second = (torch.device("cuda", index) for index in range(2))
    apart = {"thinker": first, "talker": second, "code2wav": second}
    together = dict.fromkeys(STAGES, first)
    for free, places in (
        ({first: 80 * GB, second: 80 * GB}, together),
        ({first: 68 * GB, second: 12 * GB}, apart),
        ({first: 68 * GB, second: 4 * GB}, together),  # fits nowhere: told of the first
    ):
        assert spread_stages(plan, [first, second], free) == places


def test_names_of_stages_and_devices() -> None:
    assert place_stages({"talker": "cpu"}, torch.device("meta")) == {
        "thinker": torch.device("meta"),
        "talker": CPU,
        "code2wav": torch.device("meta"),
    }
    with pytest.raises(ResourceError, match="unknown stage 'speaker'; the stages are thinker"):
        place_stages({"speaker": "cpu"}, CPU)
    with pytest.raises(ResourceError, match="unknown device"):
        place_stages({"talker": "gpu"}, CPU)


def test_the_plan_is_what_is_allocated(oracle: Oracle, ours: Qwen3Omni) -> None:
    sessions, tokens = 3, 64
    plan = plan_memory(
        oracle.config, num_sessions=sessions, context_tokens=tokens, dtype=torch.float32
    )
    weights = sum(stage.weights for stage in plan.values())
    assert weights == sum(parameter.nbytes for parameter in ours.parameters())
    decoder = oracle.config.thinker.decoder
    cache = KvCache(decoder, device=CPU, dtype=torch.float32)
    cache.reserve(tokens)
    assert cache.num_bytes == tokens * kv_bytes_per_token(decoder, torch.float32)
    assert plan["thinker"].caches == sessions * cache.num_bytes
    assert oracle.config.talker is not None
    assert ours.talker is not None
    assert ours.code2wav is not None
    pool = PagePool(oracle.config.talker.decoder, num_pages=1, device=CPU, dtype=torch.float32)
    table = PageTable(pool, num_rows=1, max_pages=1)
    slots = SpeechSlots(ours.talker, ours.code2wav, table, num_slots=sessions).vocoder
    layers = slots.front.layers
    assert plan["code2wav"].caches == sum(part.nbytes for layer in layers for part in layer.ring)
    scaled = sum(layer.output.nbytes + layer.down.nbytes for layer in layers)
    assert plan["code2wav"].state == scaled + sum(tail.nbytes for tail in slots.tails)
