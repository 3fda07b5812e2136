"""New tokens of several sequences attended at once are those of each sequence alone."""

from __future__ import annotations

import pytest
import torch

from models.cache import KvCache, PooledCache
from models.errors import ResourceError
from models.qwen3_omni.model import Qwen3Omni
from models.stepping.pages import PagedCache, PagePool, PageTable

CPU = torch.device("cpu")
PAGE = 8


def table_of(model: Qwen3Omni, num_pages: int) -> PageTable:
    config = model.thinker.model.config
    pool = PagePool(config, num_pages=num_pages, device=CPU, dtype=torch.float32, page_size=PAGE)
    for part in pool.keys + pool.values:
        part.normal_()  # what others left there is never seen
    return PageTable(pool, num_rows=5, max_pages=6)


# Of each prefill, new tokens of each sequence: within a page, to its end, over it, one alone.
@pytest.mark.parametrize(
    "prefills", [((3, 8, 17, 1), (5, 1, 9, 8)), ((9,), (1,), (30,)), ((1, 1), (2, 20), (1, 1))]
)
@torch.inference_mode()
def test_spans_are_what_each_would_be_alone(
    ours: Qwen3Omni, prefills: tuple[tuple[int, ...], ...]
) -> None:
    decoder = ours.thinker.model
    config = decoder.config
    table = table_of(ours, num_pages=24)
    paged = [PagedCache(table) for _ in prefills[0]]
    alone = [KvCache(config, device=CPU, dtype=torch.float32) for _ in paged]
    assert all(isinstance(cache, PooledCache) for cache in paged)
    assert not any(isinstance(cache, PooledCache) for cache in alone)
    source = torch.Generator().manual_seed(1)
    for counts in prefills:
        inputs = [torch.randn(n, config.hidden_size, generator=source) for n in counts]
        places = [c.length + torch.arange(float(n)) for c, n in zip(paged, counts, strict=True)]
        made = decoder.run_spans(torch.cat(inputs), torch.cat(places), paged, counts)
        parts = torch.split(made.hidden_states, list(counts))
        for part, each, where, cache in zip(parts, inputs, places, alone, strict=True):
            expected = decoder(each, where, cache).hidden_states
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    assert [c.length for c in paged] == [c.length for c in alone]


@torch.inference_mode()
def test_one_without_room_leaves_the_others_as_they_were(ours: Qwen3Omni) -> None:
    decoder = ours.thinker.model
    paged = [PagedCache(table_of(ours, num_pages=4))]
    paged.append(PagedCache(paged[0]._table))
    inputs = torch.randn(30, decoder.config.hidden_size)
    with pytest.raises(ResourceError, match="pages"):
        decoder.run_spans(inputs, torch.arange(30.0), paged, [10, 20])
    assert [cache.length for cache in paged] == [0, 0]
