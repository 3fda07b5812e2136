"""Sampling against the reference's logits processors, and the draw's own properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models.errors import RequestError
from models.sampling import Sampler, SamplingSettings, draw_rows


def reference(logits: Tensor, seen: list[int], how: SamplingSettings) -> Tensor:
    """Probabilities of the reference's processors in its own order."""
    steps: list[Any] = []
    if seen and how.repetition_penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    if how.temperature != 1.0:
        steps.append(TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        steps.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1.0:
        steps.append(TopPLogitsWarper(how.top_p))
    ids = torch.tensor([seen], dtype=torch.int64)
    scores: Tensor = LogitsProcessorList(steps)(ids, logits[None].clone())
    return scores.softmax(-1)[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.3, 0.9, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 50, 400]),
    top_p=st.sampled_from([0.05, 0.8, 0.95, 1.0]),
    penalty=st.sampled_from([1.0, 1.05, 2.0]),
    seen=st.lists(st.integers(0, 299), max_size=20),
)
def test_distribution_equals_the_reference(
    seed: int, temperature: float, top_k: int, top_p: float, penalty: float, seen: list[int]
) -> None:
    logits = torch.randn(300, generator=torch.Generator().manual_seed(seed)) * 3
    logits[250:] = float("-inf")  # as the talker's reserved codes
    how = SamplingSettings(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty
    )
    got = Sampler(how).distribution(logits, seen)
    torch.testing.assert_close(got, reference(logits, seen, how), rtol=1e-5, atol=1e-7)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])
    sampler = Sampler(SamplingSettings(top_k=4), torch.Generator().manual_seed(0))
    draws = torch.stack([sampler(logits) for _ in range(4000)])
    shares = torch.bincount(draws, minlength=5) / 4000
    torch.testing.assert_close(shares, sampler.distribution(logits), atol=0.03, rtol=0)
    assert shares[3] == 0


def test_same_seed_same_ids() -> None:
    logits = torch.randn(100)
    made = []
    for seed in (5, 5, 6):
        sampler = Sampler(SamplingSettings(), torch.Generator().manual_seed(seed))
        made.append([int(sampler(logits)) for _ in range(20)])
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    "how", [SamplingSettings(do_sample=False), SamplingSettings(temperature=0.0)]
)
def test_greedy_takes_the_best(how: SamplingSettings) -> None:
    logits = torch.tensor([1.0, 4.0, 3.0])
    assert int(Sampler(how)(logits)) == 1


def test_greedy_feels_the_penalty() -> None:
    logits = torch.tensor([-1.0, 4.0, 3.9])
    sampler = Sampler(SamplingSettings(do_sample=False, repetition_penalty=1.05))
    assert int(sampler(logits, [1, 1, 0])) == 2
    assert logits.tolist() == pytest.approx([-1.0, 4.0, 3.9])


def test_the_end_waits_for_the_minimum() -> None:
    logits = torch.tensor([1.0, 9.0, 8.0, 0.0])
    sampler = Sampler(SamplingSettings(do_sample=False, min_new_tokens=2), end_ids=(1, 2))
    assert [int(sampler(logits, seen)) for seen in ([], [0], [0, 0])] == [0, 0, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(change))):
        SamplingSettings(**change)


@pytest.mark.parametrize(
    "settings",
    [
        (SamplingSettings(top_k=20, top_p=0.8),) * 3,
        (SamplingSettings(temperature=0.7),) * 3,
        (SamplingSettings(do_sample=False),) * 3,
        (SamplingSettings(top_k=5), SamplingSettings(), SamplingSettings(do_sample=False)),
    ],
    ids=["candidates", "all", "greedy", "mixed"],
)
def test_company_changes_no_draw(settings: tuple[SamplingSettings, ...]) -> None:
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    alone, among = (
        [Sampler(how, torch.Generator().manual_seed(seed)) for seed, how in enumerate(settings)]
        for _ in range(2)
    )
    for _ in range(20):
        expected = [int(sampler(row)) for sampler, row in zip(alone, logits, strict=True)]
        assert draw_rows(among, logits).tolist() == expected
