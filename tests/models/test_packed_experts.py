"""A model whose experts are packed: what it costs in truth, and saves in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_rig import GREEDY, Rig
from oracle import Oracle
from test_engine import QUESTION, opened, user
from test_quantized import PACKED, packed_checkpoint
from torch import Tensor

from models.cache import KvCache
from models.commands import floor
from models.encoding import WindowPolicy
from models.errors import ResourceError
from models.packed_experts import PackedExperts
from models.placement import ExpertWeights
from models.qwen3_omni.model import Qwen3Omni
from models.random_weights import random_model
from models.skeleton import pick_experts
from models.weights import load_model

CPU = torch.device("cpu")
NUM_TOKENS = 48


def load(folder: Path, oracle: Oracle, experts: ExpertWeights) -> Qwen3Omni:
    return load_model(folder, oracle.config, device=CPU, dtype=torch.float32, experts=experts)


@torch.inference_mode()
def hidden_and_logits(model: Qwen3Omni, *, at_once: int) -> tuple[Tensor, Tensor]:
    """Of made-up text, fed so many tokens at a time."""
    ids = torch.randint(1000, 9000, (NUM_TOKENS,), generator=torch.Generator().manual_seed(5))
    thinker = model.thinker
    cache = KvCache(thinker.model.config, device=CPU, dtype=torch.float32)
    made = [
        thinker(
            thinker.embed(ids[start : start + at_once]),
            torch.arange(start, start + at_once, dtype=torch.float32),
            cache,
        ).hidden
        for start in range(0, NUM_TOKENS, at_once)
    ]
    hidden = torch.cat(made)
    return hidden, thinker.logits(hidden)


def expert_bytes(model: Qwen3Omni) -> int:
    return sum(
        parameter.nbytes
        for layer in model.thinker.model.layers
        for parameter in layer.mlp.experts.parameters()
    )


@pytest.mark.parametrize("at_once", [1, NUM_TOKENS])
@pytest.mark.parametrize(
    ("experts", "error", "agreement", "share"),
    [("int8", 0.03, 0.95, 0.28), ("fp8", 0.04, 0.9, 0.28), ("int4", 0.09, 0.75, 0.2)],
)
def test_what_packing_costs_and_saves(
    oracle: Oracle,
    ours: Qwen3Omni,
    experts: ExpertWeights,
    error: float,
    agreement: float,
    share: float,
    at_once: int,
) -> None:
    """Bounds of the final hidden states' relative error, and of how often the best next token is
    the same one. bfloat16 throughout: 0.02, and 0.93 of the tokens.
    """
    model = load(oracle.folder, oracle, experts)
    hidden, logits = hidden_and_logits(model, at_once=at_once)
    exact_hidden, exact_logits = hidden_and_logits(ours, at_once=at_once)
    assert float((hidden - exact_hidden).norm() / exact_hidden.norm()) < error
    same = logits.argmax(dim=-1) == exact_logits.argmax(dim=-1)
    assert float(same.float().mean()) >= agreement
    # Tiny rows share few numbers to a scale: large ones take a quarter, and 0.14.
    assert expert_bytes(model) < share * expert_bytes(ours)
    kept = {name for name, _ in model.named_parameters() if "experts" not in name}
    assert kept == {name for name, _ in ours.named_parameters() if ".mlp.experts." not in name}


@pytest.mark.parametrize("experts", ["int8", "fp8", "int4"])
def test_a_whole_reply(oracle: Oracle, experts: ExpertWeights) -> None:
    rig = opened(
        Rig(load(oracle.folder, oracle, experts), oracle, frames=4, windows=WindowPolicy())
    )
    rig.engine.append_message(1, user(QUESTION))
    reply = rig.ask(1, 1, GREEDY)
    assert reply.end is not None
    assert reply.end.status != "failed"
    assert len(reply.ids) == 8
    assert len(reply.pcm) > 0


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_a_packed_checkpoint_stays_packed(oracle: Oracle, tmp_path: Path, method: str) -> None:
    scheme = {"quant_method": method, "bits": 4, "group_size": 8}
    expected = packed_checkpoint(oracle, tmp_path, scheme)
    model = load(tmp_path, oracle, "int4")
    experts = model.thinker.model.layers[1].mlp.experts
    assert isinstance(experts, PackedExperts)
    down = expected[PACKED + "mlp.experts.3.down_proj.weight"]
    assert float((experts.down_proj.dequantized(3) - down).norm() / down.norm()) < 4e-3
    up = expected[PACKED + "mlp.experts.2.up_proj.weight"]
    ours = experts.gate_up_proj.dequantized(2)[len(up) :]
    assert float((ours - up).norm() / up.norm()) < 4e-3
    plain = load(tmp_path, oracle, "full")
    exact = hidden_and_logits(plain, at_once=NUM_TOKENS)[0]
    hidden = hidden_and_logits(model, at_once=NUM_TOKENS)[0]
    assert float((hidden - exact).norm() / exact.norm()) < 0.09  # other layers: rounded by us


def test_a_random_model_is_packed_where_it_is_made(oracle: Oracle) -> None:
    model = random_model(oracle.config, device=CPU, dtype=torch.float32, experts="int4")
    hidden, _ = hidden_and_logits(model, at_once=NUM_TOKENS)
    assert bool(hidden.isfinite().all())
    layer = model.thinker.model.layers[0]
    chosen = sum(parameter.nbytes for parameter in layer.mlp.experts.parameters()) * 2 // 8
    dense = floor._bytes_read(layer.self_attn) + layer.input_layernorm.weight.nbytes
    dense += layer.post_attention_layernorm.weight.nbytes + layer.mlp.gate.weight.nbytes
    assert floor._bytes_read(layer) == dense + chosen


def test_an_unknown_way_is_told() -> None:
    with pytest.raises(ResourceError, match="unknown experts 'int3'; say full, int8, fp8, int4"):
        pick_experts("int3")
