"""TMRoPE of Qwen3-Omni: where each piece of a message lies, as rows T, H, W.

Every function places one piece and, where it can end one, returns the start of the next: the
maximum over the piece's three rows + 1. Counts are tokens, sizes are (rows, columns) of *merged*
picture tokens. Nothing here knows ids or caches; `models.layout` walks a message with these.
Positions are float32, because the time of a picture grid may be fractional. Source:
`get_rope_index` of Hugging Face's Qwen3-Omni; 13 positions make one second of sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]


def text_positions(num_tokens: int, start: float) -> tuple[Tensor, float]:
    """[3, num_tokens]: one position for each token, equal on all rows; and the next start."""
    row = torch.arange(num_tokens, dtype=torch.float32) + start
    return row.expand(3, -1), start + num_tokens


def audio_positions(num_tokens: int, start: float) -> tuple[Tensor, float]:
    """[3, num_tokens] of sound: like text, one position for each token."""
    return text_positions(num_tokens, start)


def grid_positions(size: Size, *, time: float, start: float) -> Tensor:
    """[3, rows * columns] of one picture: T = `time`, H and W count from `start`; row-major."""
    rows, columns = size
    height = torch.arange(rows, dtype=torch.float32).repeat_interleave(columns) + start
    width = torch.arange(columns, dtype=torch.float32).repeat(rows) + start
    return torch.stack([torch.full_like(height, time), height, width])  # [3, rows * columns]


def image_positions(size: Size, start: float) -> tuple[Tensor, float]:
    """[3, rows * columns] of a still picture, and the next start."""
    positions = grid_positions(size, time=start, start=start)
    return positions, float(positions.max()) + 1


def grid_time(index: int, seconds_per_grid: float, positions_per_second: float) -> float:
    """Positions from the start of a video to its grid `index`; float32, as the reference has it."""
    seconds = np.float32(index) * np.float32(seconds_per_grid)
    return float(seconds * np.float32(positions_per_second))


def video_positions(
    size: Size,
    num_grids: int,
    start: float,
    *,
    seconds_per_grid: float,
    positions_per_second: float,
) -> tuple[Tensor, float]:
    """[3, num_grids * rows * columns] of a video without sound, and the next start.

    H and W are the same for every grid. All grids count as one piece.
    """
    times = [grid_time(k, seconds_per_grid, positions_per_second) for k in range(num_grids)]
    grids = [grid_positions(size, time=start + time, start=start) for time in times]
    positions = torch.cat(grids, dim=1)
    return positions, float(positions.max()) + 1


@dataclass(frozen=True, slots=True)
class Run:
    """Grids or audio tokens `first` to `stop` in the body of a video with sound."""

    kind: Literal["grid", "audio"]
    first: int
    stop: int


def interleave(num_grids: int, num_audio_tokens: int, grid_times: Iterator[float]) -> Iterator[Run]:
    """The order of grids and audio tokens in a video with its sound, as runs.

    Grid k lies `grid_times[k]` after the body's start and audio token i lies i after it. While
    there are both, the grid comes first if it is not later than the audio token. Each run depends
    only on what lies before it, so an item that is still open can be placed as it comes.

    Args:
        grid_times: must yield at least `num_grids` values, ascending.
    """
    audio = 0
    for grid in range(num_grids):
        # the first audio token that is not earlier than this grid
        stop = min(num_audio_tokens, max(audio, int(np.ceil(next(grid_times)))))
        if stop > audio:
            yield Run("audio", audio, stop)
            audio = stop
        yield Run("grid", grid, grid + 1)
    if audio < num_audio_tokens:
        yield Run("audio", audio, num_audio_tokens)


def audio_in_video_positions(
    size: Size,
    num_grids: int,
    num_audio_tokens: int,
    start: float,
    *,
    seconds_per_grid: float,
    positions_per_second: float,
) -> tuple[Tensor, float]:
    """[3, n] of the body of a video with its sound, and the start of the two end tokens.

    `start` is the position after the two opening tokens. The end tokens follow the last run only:
    if sound goes on after the last grid they follow the sound, even where a large picture reaches
    further.
    """
    times = [grid_time(k, seconds_per_grid, positions_per_second) for k in range(num_grids)]
    pieces: list[Tensor] = []
    following = start
    for run in interleave(num_grids, num_audio_tokens, iter(times)):
        if run.kind == "audio":
            positions, following = audio_positions(run.stop - run.first, start + run.first)
        else:
            positions = grid_positions(size, time=start + times[run.first], start=start)
            following = float(positions.max()) + 1
        pieces.append(positions)
    return torch.cat(pieces, dim=1), following
