"""The decoder's laws on random weights: streaming, rollback, windows, experts in company."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from torch import Tensor
from torch.nn import functional as F

from models.cache import DecoderCache, KvCache, WindowKvCache
from models.config import DecoderConfig, MoeConfig, RopeConfig
from models.decoder import Decoder, Deepstack
from models.feed_forward import Experts, SparseMlp
from models.qwen3_omni.model import Qwen3Omni

CPU = torch.device("cpu")
NUM_TOKENS = 13
MROPE = DecoderConfig(
    vocab_size=1,
    hidden_size=24,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=20,
    rms_norm_eps=1e-6,
    rope=RopeConfig(theta=1e4, mrope_section=(2, 1, 1)),
    moe=MoeConfig(
        num_experts=5,
        num_experts_per_token=2,
        expert_size=12,
        normalize_top_k=True,
        shared_expert_size=16,
    ),
)
WINDOWED = replace(
    MROPE, moe=None, rope=RopeConfig(theta=1e4), qk_norm=False, sliding_window=4, layer_scale=True
)


def filled(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights, and the constants made of them."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3
        weight.requires_grad_(False)
    for child in module.modules():
        if hasattr(child, "build_constants"):
            child.build_constants(CPU)
    return module


def decoder(config: DecoderConfig) -> Decoder:
    made = filled(Decoder(config))
    assert isinstance(made, Decoder)
    return made


def inputs() -> tuple[Tensor, Tensor, Deepstack]:
    """Embeddings, fractional 3-D positions, and deepstack features of some tokens."""
    generator = torch.Generator().manual_seed(7)
    embeds = torch.randn(NUM_TOKENS, 24, generator=generator)
    positions = torch.rand(3, NUM_TOKENS, generator=generator).cumsum(1) * 2
    deepstack = Deepstack(
        index=torch.tensor([2, 3, 7, 11]), features=torch.randn(2, 4, 24, generator=generator)
    )
    return embeds, positions, deepstack


def part(deepstack: Deepstack, start: int, stop: int) -> Deepstack:
    inside = (deepstack.index >= start) & (deepstack.index < stop)
    return Deepstack(index=deepstack.index[inside] - start, features=deepstack.features[:, inside])


def new_cache(config: DecoderConfig) -> KvCache:
    return KvCache(config, device=CPU, dtype=torch.float32)


def run_in_parts(
    model: Decoder, cache: DecoderCache, cuts: list[int], positions: Tensor, *, has_deepstack: bool
) -> tuple[Tensor, Tensor]:
    embeds, _, deepstack = inputs()
    edges = [0, *sorted(cuts), NUM_TOKENS]
    outputs = []
    for start, stop in pairwise(edges):
        if start == stop:
            continue
        outputs.append(
            model(
                embeds[start:stop],
                positions[..., start:stop],
                cache,
                deepstack=part(deepstack, start, stop) if has_deepstack else None,
                capture_layer=2,
            )
        )
    captured = [output.captured for output in outputs if output.captured is not None]
    return torch.cat([output.hidden_states for output in outputs]), torch.cat(captured)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, NUM_TOKENS), max_size=6))
def test_any_chunking_is_one_pass(cuts: list[int]) -> None:
    model, positions = decoder(MROPE), inputs()[1]
    whole = run_in_parts(model, new_cache(MROPE), [], positions, has_deepstack=True)
    parts = run_in_parts(model, new_cache(MROPE), cuts, positions, has_deepstack=True)
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, NUM_TOKENS), max_size=6))
def test_window_cache_is_a_masked_whole(cuts: list[int]) -> None:
    model, positions = decoder(WINDOWED), torch.arange(NUM_TOKENS, dtype=torch.float32)
    whole = run_in_parts(model, new_cache(WINDOWED), [], positions, has_deepstack=False)
    window = WindowKvCache(WINDOWED, device=CPU, dtype=torch.float32)
    for cache in (window, new_cache(WINDOWED)):
        parts = run_in_parts(model, cache, cuts, positions, has_deepstack=False)
        torch.testing.assert_close(parts[0], whole[0], rtol=1e-4, atol=1e-5)


def test_the_window_limits_what_is_seen() -> None:
    model, positions = decoder(WINDOWED), torch.arange(NUM_TOKENS, dtype=torch.float32)
    embeds = inputs()[0]
    before = model(embeds, positions, new_cache(WINDOWED)).hidden_states
    embeds[0] += 1.0
    after = model(embeds, positions, new_cache(WINDOWED)).hidden_states
    reach = 3 * (4 - 1)  # layers times earlier positions of a window
    assert torch.equal(before[reach + 1 :], after[reach + 1 :])
    assert not torch.allclose(before[reach], after[reach], atol=1e-7)


@settings(max_examples=10, deadline=None)
@given(length=st.integers(0, NUM_TOKENS - 1), extra=st.integers(1, 5))
def test_rollback_is_never_having_appended(length: int, extra: int) -> None:
    model, (embeds, positions, _) = decoder(MROPE), inputs()
    plain, rolled = new_cache(MROPE), new_cache(MROPE)
    for cache in (plain, rolled):
        if length:
            model(embeds[:length], positions[:, :length], cache)
    model(torch.randn(extra, 24), torch.randn(3, extra), rolled)
    rolled.truncate(length)
    rest = [
        model(embeds[length:], positions[:, length:], cache).hidden_states
        for cache in (plain, rolled)
    ]
    assert torch.equal(rest[0], rest[1])


@pytest.mark.parametrize("num_tokens", [3, 40])
def test_vocoder_front_equals_the_oracle(oracle: Oracle, ours: Qwen3Omni, num_tokens: int) -> None:
    """The one decoder with layer scales and a window, no q/k norm, plain positions."""
    assert ours.code2wav is not None
    front = ours.code2wav.pre_transformer
    embeds = torch.randn(num_tokens, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = oracle.model.code2wav.pre_transformer(inputs_embeds=embeds[None])
        cache = new_cache(front.config)
        got = front(embeds, torch.arange(num_tokens, dtype=torch.float32), cache)
    torch.testing.assert_close(
        got.hidden_states, expected.last_hidden_state[0], rtol=1e-5, atol=1e-5
    )


def test_equal_rows_are_plain_positions() -> None:
    model, embeds = decoder(MROPE), inputs()[0]
    positions = torch.arange(NUM_TOKENS) + 0.25
    flat = model(embeds, positions, new_cache(MROPE)).hidden_states
    rows = model(embeds, positions.expand(3, -1), new_cache(MROPE)).hidden_states
    assert torch.equal(flat, rows)


def test_failed_forward_leaves_the_cache() -> None:
    model, (embeds, positions, _) = decoder(MROPE), inputs()
    cache = new_cache(MROPE)
    model(embeds[:4], positions[:, :4], cache)
    bad = Deepstack(index=torch.tensor([99]), features=torch.randn(1, 1, 24))
    with pytest.raises(RuntimeError, match="out of bounds"):
        model(embeds[4:], positions[:, 4:], cache, deepstack=bad)
    assert cache.length == 4


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 200])
def test_experts_equal_a_dense_sum(num_tokens: int) -> None:
    assert MROPE.moe is not None
    layer = filled(SparseMlp(24, MROPE.moe))
    assert isinstance(layer, SparseMlp)
    states = torch.randn(num_tokens, 24, generator=torch.Generator().manual_seed(3))
    experts, weights = layer.route(states)
    torch.testing.assert_close(weights.sum(-1), torch.ones(num_tokens))
    every = torch.stack([dense_expert(layer.experts, e, states) for e in range(5)], dim=1)
    share = torch.zeros(num_tokens, 5).scatter(1, experts, weights)  # [T, E]
    expected = (share.unsqueeze(-1) * every).sum(1)
    expected += torch.sigmoid(layer.shared_expert_gate(states)) * layer.shared_expert(states)
    torch.testing.assert_close(layer(states), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(states), layer(states))


def dense_expert(experts: Experts, expert: int, states: Tensor) -> Tensor:
    gate, up = (states @ experts.gate_up_proj[expert].t()).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ experts.down_proj[expert].t()


@pytest.mark.parametrize("num_tokens", [1, 6])
def test_every_way_through_the_experts_is_the_same(num_tokens: int) -> None:
    assert MROPE.moe is not None
    layer = filled(SparseMlp(24, MROPE.moe))
    assert isinstance(layer, SparseMlp)
    states = torch.randn(num_tokens, 24, generator=torch.Generator().manual_seed(4))
    experts, weights = layer.route(states)
    expected = layer.experts.grouped(states, experts, weights)
    gathered = layer.experts.gathered(states, experts, weights)
    torch.testing.assert_close(gathered, expected, rtol=1e-5, atol=1e-5)
    alone = [
        layer.experts.one_token(states[t : t + 1], experts[t : t + 1], weights[t : t + 1])
        for t in range(num_tokens)
    ]
    torch.testing.assert_close(torch.cat(alone), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped product")
@pytest.mark.parametrize("num_tokens", [1, 40])
def test_all_groups_at_once_are_the_groups_one_by_one(
    num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does with many tokens; some experts have none."""
    assert MROPE.moe is not None
    layer = filled(SparseMlp(24, MROPE.moe))
    assert isinstance(layer, SparseMlp)
    assert isinstance(layer.experts, Experts)
    states = torch.randn(num_tokens, 24, generator=torch.Generator().manual_seed(4))
    experts, weights = layer.route(states)
    experts = torch.where(experts == 1, 0, experts)
    expected = layer.experts.grouped(states, experts, weights)
    at_once = layer.experts.groups_at_once
    monkeypatch.setattr(layer.experts, "_groups", at_once)
    made = layer.experts.grouped(states, experts, weights)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
