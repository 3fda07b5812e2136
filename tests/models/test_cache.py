"""Caches: growth keeps what is there, memory follows the length, limits hold, and a window's state
can be copied.
"""

from __future__ import annotations

import mmap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models import cache_memory
from models.cache import KvCache, WindowKvCache
from models.cache_memory import DeviceMemory
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


@pytest.fixture(params=["host", "device"])
def cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> KvCache:
    """With the memory that a CPU gets, and with that of other devices."""
    if request.param == "device":
        monkeypatch.setattr(cache_memory, "CHUNK", 8)
        made = partial(DeviceMemory, config(), 100, CPU, torch.float32)
        monkeypatch.setattr("models.cache.cache_memory", lambda *_: made())
    return KvCache(config(), device=CPU, dtype=torch.float32, max_length=100)


def test_growth_keeps_everything(cache: KvCache) -> None:
    tokens = torch.randn(31, 2, 4)
    for part in tokens.split([1, 4, 1, 5, 20]):
        seen = append(cache, part)
    assert cache.length == 31
    for layer in range(2):
        assert torch.equal(seen[2 * layer], (tokens + layer).transpose(0, 1))
        assert torch.equal(seen[2 * layer + 1], (-tokens - layer).transpose(0, 1))


def test_truncate_goes_back_only(cache: KvCache) -> None:
    first, second = torch.randn(3, 2, 4), torch.randn(9, 2, 4)
    append(cache, torch.cat((first, torch.randn(20, 2, 4))))
    cache.truncate(3)
    keys = append(cache, second)[0]
    assert torch.equal(keys, torch.cat((first, second)).transpose(0, 1))
    for length in (-1, 13):
        with pytest.raises(ValueError, match="can not cut"):
            cache.truncate(length)
    cache.release()
    assert cache.num_bytes == 0
    assert torch.equal(append(cache, second)[0], second.transpose(0, 1))


def resident(cache: KvCache) -> int:
    """What the operating system has given, by its own account: of these pages alone, since a
    neighbour's may lie in the same mapping.
    """
    memory = cache._memory
    assert isinstance(memory, cache_memory.HostMemory)
    first, size = memory.keys[0].data_ptr(), len(memory._map)
    with Path("/proc/self/pagemap").open("rb") as pages:
        pages.seek(8 * (first // mmap.PAGESIZE))
        entries = np.frombuffer(pages.read(8 * (size // mmap.PAGESIZE)), np.uint64)
    return mmap.PAGESIZE * int((entries >> np.uint64(62) > 0).sum())  # in memory or swapped out


def test_memory_held_is_what_is_needed_and_a_page() -> None:
    """By the cache's count and by the operating system's."""
    large = config(num_layers=4, num_kv_heads=3, head_dim=128)
    cache = KvCache(large, device=CPU, dtype=torch.bfloat16)
    num_parts, position = 2 * 4 * 3, 128 * 2
    for length in (1, 700, 701, 2300, 640, 33, 900, 0):
        if length < cache.length:
            cache.truncate(length)
        else:
            new = torch.ones(length - cache.length, 3, 128, dtype=torch.bfloat16)
            cache.reserve(len(new))
            for layer in range(4):
                cache.append(layer, new, new)
            cache.advance(len(new))
        needed = num_parts * length * position
        assert needed <= cache.num_bytes < needed + num_parts * mmap.PAGESIZE
        assert resident(cache) == cache.num_bytes


def test_memory_elsewhere_is_within_a_chunk() -> None:
    memory = DeviceMemory(config(), 1300, CPU, torch.float32)
    for length, held in ((1, 512), (512, 512), (513, 1024), (1300, 1300), (600, 1024), (0, 0)):
        memory.resize(length, kept=0)
        assert memory.num_bytes == 2 * 2 * 2 * held * 4 * 4


def test_a_windows_memory_is_counted() -> None:
    window = WindowKvCache(config(sliding_window=5), device=CPU, dtype=torch.float32)
    assert window.num_bytes == 2 * 2 * (2 * 10 * 4) * 4


def test_full_cache_refuses_and_stays() -> None:
    cache = KvCache(config(max_positions=6), device=CPU, dtype=torch.float32)
    append(cache, torch.randn(5, 2, 4))
    with pytest.raises(ResourceError, match="7 tokens are needed, 6 fit"):
        cache.reserve(2)
    assert cache.length == 5
    append(cache, torch.randn(1, 2, 4))


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
