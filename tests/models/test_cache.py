"""Caches: growth keeps what is there, limits hold, and a window's state can be copied."""

from __future__ import annotations

import pytest
import torch

from models.cache import KvCache, WindowKvCache
from models.config import DecoderConfig, RopeConfig
from models.errors import ResourceError

CPU = torch.device("cpu")


def config(**changes: object) -> DecoderConfig:
    values: dict[str, object] = {
        "vocab_size": 1,
        "hidden_size": 8,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 4,
        "intermediate_size": 8,
        "rms_norm_eps": 1e-6,
        "rope": RopeConfig(theta=1e4),
        **changes,
    }
    return DecoderConfig(**values)  # type: ignore[arg-type]


def append(cache: KvCache | WindowKvCache, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Append [T, heads, dim] to every layer; keys and values that each layer then sees."""
    cache.reserve(len(tokens))
    seen = [cache.append(layer, tokens + layer, -tokens - layer) for layer in range(2)]
    cache.advance(len(tokens))
    return [tensor.clone() for pair in seen for tensor in pair]


def test_growth_keeps_everything() -> None:
    tokens = torch.randn(11, 2, 4)
    cache = KvCache(config(), capacity=2, device=CPU, dtype=torch.float32)
    for part in tokens.split([1, 4, 1, 5]):
        seen = append(cache, part)
    assert cache.length == 11
    assert cache.capacity == 16
    for layer in range(2):
        assert torch.equal(seen[2 * layer], (tokens + layer).transpose(0, 1))
        assert torch.equal(seen[2 * layer + 1], (-tokens - layer).transpose(0, 1))


def test_memory_is_counted() -> None:
    cache = KvCache(config(), capacity=10, device=CPU, dtype=torch.bfloat16)
    assert cache.num_bytes == 2 * 2 * (2 * 10 * 4) * 2  # keys and values, layers, elements, bytes
    window = WindowKvCache(config(sliding_window=5), device=CPU, dtype=torch.float32)
    assert window.num_bytes == 2 * 2 * (2 * 10 * 4) * 4


def test_full_cache_refuses_and_stays() -> None:
    cache = KvCache(config(max_positions=6), capacity=64, device=CPU, dtype=torch.float32)
    append(cache, torch.randn(5, 2, 4))
    with pytest.raises(ResourceError, match="7 tokens are needed, 6 fit"):
        cache.reserve(2)
    assert cache.length == 5
    append(cache, torch.randn(1, 2, 4))


def test_truncate_goes_back_only() -> None:
    cache = KvCache(config(), capacity=4, device=CPU, dtype=torch.float32)
    first, second = torch.randn(3, 2, 4), torch.randn(2, 2, 4)
    append(cache, torch.cat((first, torch.randn(4, 2, 4))))
    cache.truncate(3)
    keys = append(cache, second)[0]
    assert torch.equal(keys, torch.cat((first, second)).transpose(0, 1))
    for length in (-1, 6):
        with pytest.raises(ValueError, match="can not cut"):
            cache.truncate(length)


@pytest.mark.parametrize("parts", [[1] * 17, [17], [3, 9, 1, 1, 3], [2, 15]])
def test_window_shows_the_last_positions(parts: list[int]) -> None:
    tokens = torch.randn(17, 2, 4)
    cache = WindowKvCache(config(sliding_window=4), device=CPU, dtype=torch.float32)
    for part, stop in zip(tokens.split(parts), torch.tensor(parts).cumsum(0).tolist(), strict=True):
        start = stop - len(part)
        expected = tokens[max(0, start - 3) : stop].transpose(0, 1)
        assert torch.equal(append(cache, part)[0], expected)
    assert cache.length == 17


def test_clone_is_independent() -> None:
    tokens = torch.randn(9, 2, 4)
    cache = WindowKvCache(config(sliding_window=4), device=CPU, dtype=torch.float32)
    append(cache, tokens[:6])
    copy = cache.clone()
    append(cache, torch.randn(5, 2, 4))
    seen = append(copy, tokens[6:])
    assert copy.length == 9
    assert torch.equal(seen[0], tokens[3:].transpose(0, 1))


def test_window_needs_a_window() -> None:
    with pytest.raises(ValueError, match="sliding window"):
        WindowKvCache(config(), device=CPU, dtype=torch.float32)
