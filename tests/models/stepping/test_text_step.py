"""Tokens of many replies in one step are those of each alone; pages are the plain cache."""

from __future__ import annotations

import pytest
import torch
from oracle import Oracle
from recorded import Recorder

from models.cache import KvCache
from models.errors import ResourceError
from models.graphs import Buckets, pick_capture, plain, sizes_for
from models.placement import ExpertWeights
from models.qwen3_omni.model import Qwen3Omni
from models.sampling import Sampler, SamplingSettings
from models.stepping.operations import PLAIN, pick_operations
from models.stepping.pages import PagedCache, PagePool, PageTable
from models.stepping.text_step import TextDraw, TextRow, TextStep, can_draw
from models.weights import load_model

CPU = torch.device("cpu")
PROMPTS = ([5, 6, 7, 8, 9], [100] * 15, [300, 301])
ANSWERS = ([10, 11, 12], [20, 21, 22], [30, 31, 32])


def table_of(model: Qwen3Omni, num_pages: int = 12, num_rows: int = 4) -> PageTable:
    config = model.thinker.model.config
    pool = PagePool(config, num_pages=num_pages, device=CPU, dtype=torch.float32, page_size=8)
    return PageTable(pool, num_rows=num_rows, max_pages=3)


@pytest.mark.parametrize("experts", ["full", "int4"])
@torch.inference_mode()
def test_logits_equal_the_plain_decoder(
    oracle: Oracle, ours: Qwen3Omni, experts: ExpertWeights
) -> None:
    model = ours
    if experts != "full":
        model = load_model(
            oracle.folder, oracle.config, device=CPU, dtype=torch.float32, experts=experts
        )
    thinker = model.thinker
    table = table_of(model)
    recorder = Recorder()
    step = TextStep(thinker, table, PLAIN, recorder, sizes=(4,))
    paged = [PagedCache(table) for _ in PROMPTS]
    whole = [KvCache(thinker.model.config, device=CPU, dtype=torch.float32) for _ in paged]
    for prompt, *caches in zip(PROMPTS, paged, whole, strict=True):
        for cache in caches:
            thinker(thinker.embed(torch.tensor(prompt)), torch.arange(float(len(prompt))), cache)
    for place in range(3):
        rows = [
            TextRow(
                row=cache.row,
                token=answer[place],
                length=cache.length,
                position=float(cache.length),
            )
            for answer, cache in zip(ANSWERS, paged, strict=True)
        ]
        for cache in paged:
            cache.reserve(1)
        logits = step(rows)
        for row, made, cache, twin in zip(rows, logits, paged, whole, strict=True):
            assert isinstance(made, torch.Tensor)
            cache.advance(1)
            where = torch.tensor([row.position])
            alone = thinker(thinker.embed(torch.tensor([row.token])), where, twin)
            torch.testing.assert_close(made, thinker.logits(alone.hidden[0]), rtol=1e-4, atol=1e-4)
    assert recorder.num_replays == 3


@torch.inference_mode()
def test_ids_are_drawn_in_the_step_by_each_rows_own_settings(ours: Qwen3Omni) -> None:
    table = table_of(ours, num_pages=4, num_rows=4)
    recorder = Recorder()
    step = TextStep(ours.thinker, table, PLAIN, recorder, sizes=(3,))
    cache = PagedCache(table)
    cache.reserve(1)

    def asked(*draws: TextDraw | None) -> list[int | torch.Tensor]:
        rows = [
            TextRow(row=cache.row, token=5, length=0, position=0.0, draw=draw) for draw in draws
        ]
        return step(rows)

    (logits,) = asked(None)
    assert isinstance(logits, torch.Tensor)
    logits = logits.clone()
    best, second = logits.topk(2).indices.tolist()
    greedy = SamplingSettings(do_sample=False)
    drawn = SamplingSettings(temperature=2.0, top_k=4, top_p=0.9)
    assert asked(
        TextDraw(settings=greedy), TextDraw(settings=greedy, banned=best), TextDraw(settings=greedy)
    ) == [best, second, best]

    counts = dict.fromkeys(range(len(logits)), 0)
    for count in range(600):
        big = 2**62 - 1  # seeds are of 62 bits
        one, alike, other = asked(
            TextDraw(settings=drawn, seed=big, count=count),
            TextDraw(settings=greedy, seed=count),
            TextDraw(settings=drawn, seed=big - 1, count=count),
        )
        assert alike == best
        assert [one] == asked(TextDraw(settings=drawn, seed=big, count=count))[:1]
        counts[int(one)] += 1
        counts[int(other)] += 1
    wanted = Sampler(drawn).distribution(logits)
    seen = torch.tensor(list(counts.values())) / 1200
    torch.testing.assert_close(seen, wanted, rtol=0.0, atol=0.05)
    assert recorder.num_replays == 2 + 2 * 600


def test_what_a_step_can_not_draw_is_the_hosts() -> None:
    assert can_draw(SamplingSettings(do_sample=False), 0)
    assert can_draw(SamplingSettings(top_k=50, top_p=0.8), 0)
    assert not can_draw(SamplingSettings(), 0)  # from all of the vocabulary
    assert not can_draw(SamplingSettings(top_k=1000), 0)
    assert not can_draw(SamplingSettings(top_k=50, repetition_penalty=1.1), 0)
    late = SamplingSettings(do_sample=False, min_new_tokens=3)
    assert [can_draw(late, count) for count in (2, 3)] == [False, True]


@torch.inference_mode()
def test_a_paged_cache_cut_back_goes_on_as_if_never_longer(ours: Qwen3Omni) -> None:
    table = table_of(ours)
    pool = table.pool
    decoder, config = ours.thinker.model, ours.thinker.model.config
    paged = PagedCache(table)
    fresh = KvCache(config, device=CPU, dtype=torch.float32)
    tokens = torch.randn(20, config.hidden_size, generator=torch.Generator().manual_seed(0))
    where = torch.arange(20.0)
    decoder(tokens[:17], where[:17], paged)
    assert (paged.capacity, pool.num_free) == (24, 8)
    paged.truncate(6)
    assert (paged.capacity, pool.num_free) == (8, 10)
    decoder(tokens[:6], where[:6], fresh)
    made = decoder(tokens[6:12], where[6:12], paged).hidden_states
    expected = decoder(tokens[6:12], where[6:12], fresh).hidden_states
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="can not cut"):
        paged.truncate(13)


def test_full_pools_and_full_sequences_are_refused_whole(ours: Qwen3Omni) -> None:
    table = table_of(ours, num_pages=4, num_rows=2)
    pool = table.pool
    first, second = PagedCache(table), PagedCache(table)
    first.reserve(16)
    with pytest.raises(ResourceError, match="2 pages of 8 tokens are needed, 1 are free"):
        second.reserve(9)
    assert (pool.num_free, second.capacity) == (1, 0)
    with pytest.raises(ResourceError, match="25 tokens are needed, 24 fit"):
        first.reserve(25)
    with pytest.raises(ResourceError, match="1 contexts hold caches"):
        second.reserve(1)
    assert pool.num_free == 1
    first.release()
    second.reserve(1)
    assert (pool.num_free, second.row) == (2, 1)


def test_choices_of_kernels_and_graphs() -> None:
    assert pick_operations(CPU) is PLAIN
    assert pick_capture(CPU) is plain
    assert pick_capture(torch.device("cuda"), "off") is plain
    for pick in (pick_operations, pick_capture):
        with pytest.raises(ResourceError, match="unknown"):
            pick(CPU, "maybe")
    with pytest.raises(ResourceError, match="need a GPU"):
        pick_capture(CPU, "on")


def test_a_batch_takes_the_next_size() -> None:
    built: list[int] = []
    buckets = Buckets(lambda size: built.append(size) or size, (1, 4, 8))
    assert [buckets.of(count) for count in (3, 1, 4, 8)] == [4, 1, 4, 8]
    assert built == [4, 1, 8]
    assert buckets.largest == 8
    assert [sizes_for(most) for most in (1, 3, 8)] == [(1,), (1, 2, 4), (1, 2, 4, 8)]
