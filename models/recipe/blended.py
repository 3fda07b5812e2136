"""Speakers between speakers: one sentence by two voices, aligned in time, mixed into a third.

Synthesizers have few speakers, and what is learnt from few does not hold for others. Both clips'
raw log-mel features [bins, frames] (`models.qwen3_omni.mel`) are warped onto each other by dynamic
time warping over their cepstra (Sakoe and Chiba 1978), and added with shares that sum to one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_CEPSTRA = 13
EDGE = 1e9  # dearer than any path


def blended(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The first clip with `share` of the second in it, [bins, frames of the first].

    Below 0 or above 1 what sets the two apart is overdone.
    """
    chosen = _alignment(_cepstra(first), _cepstra(second))
    return torch.lerp(first, second[:, torch.from_numpy(chosen)], share)


def _cepstra(raw: Tensor) -> NDArray[np.float32]:
    """[frames, NUM_CEPSTRA], each of mean 0 and variance 1 over the clip."""
    bins = raw.shape[0]
    places = torch.arange(bins) + 0.5
    waves = torch.cos(torch.pi / bins * places * torch.arange(NUM_CEPSTRA)[:, None])
    cepstra = (waves @ raw.clamp(min=raw.max() - 6)).t()
    spread = cepstra.std(dim=0, keepdim=True).clamp(min=1e-3)
    made: NDArray[np.float32] = ((cepstra - cepstra.mean(dim=0, keepdim=True)) / spread).numpy()
    return made


def _alignment(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each frame of the first the frame of the second that the cheapest path gives it."""
    costs = _distances(first, second)
    rows, columns = costs.shape
    totals = np.full((rows + 1, columns + 1), EDGE)
    totals[0, 0] = 0.0
    for diagonal in range(rows + columns - 1):  # cells of one diagonal do not need each other
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.minimum(totals[i, j + 1], totals[i + 1, j])
        totals[i + 1, j + 1] = np.minimum(before, totals[i, j]) + costs[i, j]
    chosen = np.zeros(rows, np.int64)
    row, column = rows - 1, columns - 1
    while row >= 0:
        chosen[row] = column
        steps = totals[row, column], totals[row, column + 1], totals[row + 1, column]
        match int(np.argmin(steps)):
            case 0:
                row, column = row - 1, column - 1
            case 1:
                row -= 1
            case _:
                column -= 1
        column = max(column, 0)
    return chosen


def _distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    made: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0))
    return made
