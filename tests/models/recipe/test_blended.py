"""Speakers between speakers: aligned in time, mixed by share."""

from __future__ import annotations

import torch
from torch import Tensor

from models.recipe.blended import blended


def clip(spans: list[tuple[int, int]], *, peak: float = 0.0) -> Tensor:
    """Raw log-mel of sounds one after the other: (the loudest bin, frames)."""
    bins = torch.arange(128)[:, None]
    parts = [
        (peak - 0.002 * (bins - place) ** 2).clamp(min=peak - 4).expand(128, frames)
        for place, frames in spans
    ]
    return torch.cat(parts, dim=1)


def test_the_same_sounds_meet_at_whatever_speed_they_are_said() -> None:
    first = clip([(20, 10), (60, 30), (100, 12)])
    slower = first.repeat_interleave(2, dim=1)
    assert torch.allclose(blended(first, slower, 1.0), first, atol=1e-5)
    assert torch.allclose(blended(slower, first, 1.0), slower, atol=1e-5)


def test_the_share_mixes_and_overdoes() -> None:
    first = clip([(20, 20), (60, 20)])
    louder = clip([(20, 30), (60, 30)], peak=1.0)
    for share in (-0.3, 0.0, 0.5):
        made = blended(first, louder, share)
        assert made.shape == first.shape
        assert torch.allclose(made, first + share, atol=1e-5)
