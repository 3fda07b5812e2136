"""Single tokens take the short way on a CPU, and come out as by the plain one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_decoder import CPU, MROPE, WINDOWED, decoder

from models.cache import KvCache, WindowKvCache
from models.config import DecoderConfig, RopeConfig
from models.decode_step import DecodeStep
from models.decoder import Decoder
from models.errors import ContextFullError

DENSE = replace(MROPE, moe=None, rope=RopeConfig(theta=1e4))


def new_cache(config: DecoderConfig) -> KvCache | WindowKvCache:
    if config.sliding_window is None:
        return KvCache(config, device=CPU, dtype=torch.float32)
    return WindowKvCache(config, device=CPU, dtype=torch.float32)


def speak(made: Decoder, config: DecoderConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tokens at once, then seven alone: the outputs and the captured states of these."""
    states = torch.randn(9, config.hidden_size, generator=torch.Generator().manual_seed(5))
    cache = new_cache(config)
    positions = torch.arange(9, dtype=torch.float32)
    made(states[:2], positions[:2], cache)
    outputs = [
        made(states[i : i + 1], positions[i : i + 1], cache, capture_layer=2) for i in range(2, 9)
    ]
    assert cache.length == 9
    captured = [output.captured for output in outputs if output.captured is not None]
    return torch.cat([output.hidden_states for output in outputs]), torch.cat(captured)


@pytest.mark.parametrize("config", [MROPE, WINDOWED, DENSE], ids=["moe", "window", "dense"])
def test_the_short_way_equals_the_plain_one(
    config: DecoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = decoder(config)
    with torch.inference_mode():
        plain = speak(made, config)
    made.prepare_step()
    calls = []
    monkeypatch.setattr(
        DecodeStep,
        "__call__",
        lambda self, *args, call=DecodeStep.__call__: calls.append(1) or call(self, *args),
    )
    with torch.inference_mode():
        short = speak(made, config)
    assert len(calls) == 7
    torch.testing.assert_close(short, plain, rtol=1e-5, atol=1e-6)


def test_gradients_go_the_plain_way() -> None:
    made = decoder(DENSE)
    made.prepare_step()
    made.requires_grad_(True)
    output = made(torch.ones(1, 24), torch.zeros(1), new_cache(DENSE)).hidden_states
    output.sum().backward()
    assert made.layers[0].self_attn.qkv_proj.weight.grad is not None


def test_other_dtypes_have_no_short_way() -> None:
    assert DecodeStep.fits(decoder(DENSE))
    assert not DecodeStep.fits(decoder(DENSE).to(torch.bfloat16))


# ------------------------------------------------------------------ several sequences
@pytest.mark.parametrize("has_step", [False, True], ids=["plain", "quick"])
@pytest.mark.parametrize("config", [MROPE, WINDOWED, DENSE], ids=["moe", "window", "dense"])
@torch.inference_mode()
def test_a_sequence_is_the_same_alone_and_among_others(
    config: DecoderConfig, has_step: bool
) -> None:
    made = decoder(config)
    if has_step:
        made.prepare_step()
    generator = torch.Generator().manual_seed(3)
    lengths = (2, 7, 4)
    alone, among = ([new_cache(config) for _ in lengths] for _ in range(2))
    for length, *both in zip(lengths, alone, among, strict=True):
        start = torch.randn(length, config.hidden_size, generator=generator)
        for cache in both:
            made(start, torch.arange(length, dtype=torch.float32), cache)
    for step in range(5):
        rows = torch.randn(len(lengths), config.hidden_size, generator=generator)
        positions = torch.tensor(lengths, dtype=torch.float32) + step
        rotary = made.rotary(positions, rows.dtype)
        together = made.run_rows(rows, rotary, among, capture_layer=2)
        for row, cache in enumerate(alone):
            one = slice(row, row + 1)
            expected = made(rows[one], positions[one], cache, capture_layer=2)
            torch.testing.assert_close(
                together.hidden_states[one], expected.hidden_states, rtol=1e-5, atol=1e-6
            )
            assert together.captured is not None
            torch.testing.assert_close(
                together.captured[one], expected.captured, rtol=1e-5, atol=1e-6
            )
    assert [cache.length for cache in among] == [cache.length for cache in alone] == [7, 12, 9]


def test_one_full_cache_leaves_all_as_they_were() -> None:
    made = decoder(DENSE)
    caches = [
        KvCache(DENSE, device=CPU, dtype=torch.float32, max_length=length) for length in (8, 0, 8)
    ]
    rotary = made.rotary(torch.zeros(3), torch.float32)
    with pytest.raises(ContextFullError):
        made.run_rows(torch.ones(3, 24), rotary, caches)
    assert [cache.length for cache in caches] == [0, 0, 0]
