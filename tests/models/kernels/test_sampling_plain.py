"""The plain device sampler draws what `models.sampling` says, whatever its neighbours are."""

from __future__ import annotations

import torch

from models.kernels import sampling
from models.sampling import Sampler, SamplingSettings

CPU = torch.device("cpu")


def test_random_numbers_are_philox() -> None:
    """Known answer of Philox 4x32-10 for counter 0 and key 0: 0x6627e8d5."""
    zero = torch.zeros(1, dtype=torch.int64)
    assert sampling._philox(zero, zero).tolist() == [0x6627E8D5]


def test_frequencies_are_the_distribution() -> None:
    settings = SamplingSettings(temperature=0.8, top_k=6, top_p=0.9, repetition_penalty=1.5)
    logits = 2.0 * torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(1, 12, dtype=torch.bool)
    seen[0, [int(logits.argmax()), 3]] = True
    expected = Sampler(settings).distribution(logits[0], seen[0].nonzero()[:, 0].tolist())
    rows = 4000
    draws = sampling.Draws.of([settings] * rows, list(range(rows)), CPU)
    ids = sampling.reference(logits.expand(rows, -1), draws, seen.expand(rows, -1))
    found = torch.bincount(ids, minlength=12) / rows
    assert found[expected == 0].sum() == 0
    assert (found - expected).abs().max() < 0.04


def test_an_offset_draws_what_counting_draws() -> None:
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    counted, ahead = (sampling.Draws.of([SamplingSettings()] * 3, [5, 6, 7], CPU) for _ in range(2))
    for offset in range(5):
        expected = sampling.reference(logits, counted, None).tolist()
        assert sampling.reference(logits, ahead, None, offset).tolist() == expected
        counted.advance()
    ahead.advance(5)
    assert ahead.count.tolist() == counted.count.tolist()


def test_a_row_draws_the_same_in_company() -> None:
    logits = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    settings = [SamplingSettings(top_k=20)] * 5
    draws = sampling.Draws.of(settings, [5, 6, 7, 8, 9], CPU)
    draws.advance()
    alone = sampling.Draws.of(settings[:1], [8], CPU)
    alone.advance()
    together = sampling.reference(logits, draws, None)
    assert sampling.reference(logits[3:4], alone, None)[0] == together[3]
