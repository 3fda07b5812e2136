"""The thinker against the oracle, for every kind of prompt: logits, captured layer, greedy text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from oracle import SCENARIOS, Oracle

from models.cache import KvCache
from models.decoder import Deepstack
from models.qwen3_omni.model import Qwen3Omni
from models.weights import load_model

CPU = torch.device("cpu")


@contextmanager
def recorded(module: Any) -> Iterator[list[dict[str, Any]]]:
    """Keyword arguments of each call of a module of the oracle."""
    calls: list[dict[str, Any]] = []
    hook = module.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(kwargs), with_kwargs=True
    )
    try:
        yield calls
    finally:
        hook.remove()


def new_cache(ours: Qwen3Omni) -> KvCache:
    config = ours.config.thinker.decoder
    return KvCache(config, device=CPU, dtype=torch.float32)


def deepstack_of(call: dict[str, Any]) -> Deepstack | None:
    if call.get("deepstack_visual_embeds") is None:
        return None
    index = call["visual_pos_masks"][0].nonzero().flatten()
    return Deepstack(index=index, features=torch.stack(list(call["deepstack_visual_embeds"])))


@pytest.mark.parametrize("name", SCENARIOS)
def test_prefill_equals_the_oracle(oracle: Oracle, ours: Qwen3Omni, name: str) -> None:
    arguments = oracle.scenario(name)
    with torch.no_grad(), recorded(oracle.model.thinker.model.language_model) as calls:
        expected = oracle.model.thinker(**arguments, output_hidden_states=True)
    call = calls[0]
    with torch.inference_mode():
        output = ours.thinker(
            call["inputs_embeds"][0],
            call["position_ids"][-3:, 0].float(),
            new_cache(ours),
            deepstack_of(call),
        )
        logits = ours.thinker.logits(output.hidden)
    torch.testing.assert_close(logits, expected.logits[0], rtol=1e-5, atol=1e-5)
    layer = ours.thinker.capture_layer
    torch.testing.assert_close(
        output.captured, expected.hidden_states[layer][0], rtol=1e-5, atol=1e-5
    )


def test_text_is_embedded_as_in_the_oracle(oracle: Oracle, ours: Qwen3Omni) -> None:
    ids = oracle.scenario("text")["input_ids"][0]
    with torch.no_grad():
        expected = oracle.model.thinker.get_input_embeddings()(ids)
    assert torch.equal(ours.thinker.embed(ids), expected)


def test_greedy_text_equals_the_oracle(oracle: Oracle, ours: Qwen3Omni) -> None:
    arguments = oracle.scenario("text")
    prompt = arguments["input_ids"][0]
    with torch.no_grad():
        expected = oracle.model.thinker.generate(
            **arguments, max_new_tokens=12, do_sample=False, eos_token_id=-1
        )[0, len(prompt) :]
    cache = new_cache(ours)
    ids, made = prompt, []
    with torch.inference_mode():
        for _ in range(12):
            positions = torch.arange(len(ids), dtype=torch.float32) + cache.length
            hidden = ours.thinker(ours.thinker.embed(ids), positions, cache).hidden[-1]
            ids = ours.thinker.logits(hidden).argmax().view(1)
            made.append(int(ids))
    assert made == expected.tolist()


def test_bfloat16_stays_close(oracle: Oracle, ours: Qwen3Omni) -> None:
    """Eight bits of mantissa over six layers leave an error of one or two percent, measured."""
    rounded = load_model(oracle.folder, oracle.config, device=CPU, dtype=torch.bfloat16)
    ids = oracle.scenario("text")["input_ids"][0]
    positions = torch.arange(len(ids), dtype=torch.float32)
    logits = []
    with torch.inference_mode():
        for model in (ours, rounded):
            embeds = model.thinker.embed(ids)
            cache = KvCache(oracle.config.thinker.decoder, device=CPU, dtype=embeds.dtype)
            logits.append(model.thinker.logits(model.thinker(embeds, positions, cache).hidden))
    assert logits[1].dtype == torch.float32
    assert (logits[1] - logits[0]).norm() < 0.05 * logits[0].norm()
