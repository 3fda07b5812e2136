"""A head read as int8 first gives the logits that matter, and they are the head's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import screened_head
from models.sampling import Sampler, SamplingSettings
from models.screened_head import ScreenedHead


def test_the_best_logits_are_those_of_the_whole_head() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5000, 96, generator=generator)
    weight[77] = 0.0
    weight[100:200] *= torch.logspace(-6, 1, 100)[:, None]  # rows of very different sizes
    head = ScreenedHead(weight)
    for num_best in (1, 2, 20):
        rows = torch.randn(20, 96, generator=generator) * 3
        for hidden, logits in zip(rows, head.logits(rows, [num_best] * 20), strict=True):
            best = (weight @ hidden).topk(num_best)
            found = logits.topk(num_best)
            assert found.indices.tolist() == best.indices.tolist()
            torch.testing.assert_close(found.values, best.values, rtol=1e-5, atol=1e-5)


def test_few_rows_are_computed_where_the_logits_differ() -> None:
    weight = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(2))
    (logits,) = ScreenedHead(weight).logits(weight[5:6] * 2, [1])
    assert int(logits.argmax()) == 5
    assert int(logits.isfinite().sum()) < 20


def test_equal_rows_are_all_computed() -> None:
    (logits,) = ScreenedHead(torch.full((1000, 64), 0.5)).logits(torch.ones(1, 64), [1])
    assert logits.isfinite().all()


def test_small_heads_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    head = nn.Linear(32, 100, bias=False)
    assert ScreenedHead.of(head) is None
    monkeypatch.setattr(screened_head, "MIN_HEAD_BYTES", 1)
    assert ScreenedHead.of(head) is not None
    assert ScreenedHead.of(head.to(torch.bfloat16)) is None


@pytest.mark.parametrize(
    ("settings", "seen", "num_best"),
    [
        (SamplingSettings(do_sample=False), (1, 2), 1),
        (SamplingSettings(top_k=20), (), 20),
        (SamplingSettings(top_p=0.9), (), None),
        (SamplingSettings(top_k=20, repetition_penalty=1.1), (4, 4, 5), 22),
        (SamplingSettings(top_k=20, repetition_penalty=0.9), (4,), None),
        (SamplingSettings(top_k=20, min_new_tokens=2), (4,), 22),
        (SamplingSettings(top_k=20, min_new_tokens=2), (4, 5), 20),
    ],
)
def test_how_many_logits_a_draw_depends_on(
    settings: SamplingSettings, seen: tuple[int, ...], num_best: int | None
) -> None:
    assert Sampler(settings, end_ids=(7, 8)).num_best(seen) == num_best
