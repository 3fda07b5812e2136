"""Pictures -> patches for the vision encoder, as the published image and video processors do it.

A picture is resized (bicubic, antialiased) to whole merge blocks within pixel limits, scaled to
-1..1 and cut into patches that lie block by block: the patches of one merge block are neighbours. A
grid holds two frames; a still picture fills both. Stills and camera grids have limits of their own,
and a live session may cap them further. Pure numpy and Pillow: nothing here knows devices. Source:
the Qwen2-VL processors with Qwen3-Omni's settings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.config import VisionEncoderConfig
from models.content import Rgb
from models.errors import CheckpointError, RequestError

MAX_ASPECT = 200
MAX_PIXELS = 64_000_000  # more is refused unseen: resizing it would stall the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLimits:
    """Least and most pixels of a resized picture."""

    min_pixels: int
    max_pixels: int

    def capped(self, max_pixels: int) -> PixelLimits:
        """The same limits with a maximum no higher than `max_pixels`."""
        most = min(self.max_pixels, max_pixels)
        return PixelLimits(min_pixels=min(self.min_pixels, most), max_pixels=most)


IMAGE_LIMITS = PixelLimits(min_pixels=3_136, max_pixels=12_845_056)
FRAME_LIMITS = PixelLimits(min_pixels=131_072, max_pixels=786_432)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLayout:
    """Sizes that the vision encoder expects, and the colour scaling it was trained with."""

    patch_size: int = 16
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    mean: float = 0.5
    std: float = 0.5

    @classmethod
    def of(cls, config: VisionEncoderConfig) -> PatchLayout:
        """The layout of a checkpoint's encoder."""
        return cls(
            patch_size=config.patch_size,
            spatial_merge_size=config.spatial_merge_size,
            temporal_patch_size=config.temporal_patch_size,
        )

    @property
    def factor(self) -> int:
        """Both sides of a resized picture are multiples of this: one merge block."""
        return self.patch_size * self.spatial_merge_size


LAYOUT = PatchLayout()


class Patches(NamedTuple):
    """One grid: patches [h * w, 3 * frames * patch_size ** 2] float32, and (h, w) in patches."""

    patches: npt.NDArray[np.float32]
    size: tuple[int, int]


def read_pixel_limits(folder: Path) -> tuple[PixelLimits, PixelLimits]:
    """Limits of stills and of camera frames of a checkpoint.

    Its processor files overrule the published defaults where they are present.

    Raises:
        CheckpointError: a processor file is not what it should be.
    """
    return (
        _limits(folder / "preprocessor_config.json", IMAGE_LIMITS),
        _limits(folder / "video_preprocessor_config.json", FRAME_LIMITS),
    )


def smart_resize(height: int, width: int, *, factor: int, limits: PixelLimits) -> tuple[int, int]:
    """Multiples of `factor` near (height, width), scaled so that their area is within `limits`.

    Raises:
        RequestError: a picture without area, too large, or too long and thin.
    """
    if height <= 0 or width <= 0:
        raise RequestError(f"a picture of {width} x {height} pixels has no area")
    if height * width > MAX_PIXELS:
        raise RequestError(f"a picture of {width} x {height} pixels is too large")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise RequestError(f"a picture of {width} x {height} pixels is too long and thin")
    area, sides = height * width, (height, width)
    # Python's round (ties to even) as in the reference: of factor 32, 48 becomes 64 and so does 80.
    nearest = [round(side / factor) * factor for side in sides]
    if nearest[0] * nearest[1] > limits.max_pixels:
        shrink = math.sqrt(area / limits.max_pixels)
        nearest = [max(factor, math.floor(side / shrink / factor) * factor) for side in sides]
    elif nearest[0] * nearest[1] < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / area)
        nearest = [math.ceil(side * grow / factor) * factor for side in sides]
    return nearest[0], nearest[1]


def patchify(
    frames: Sequence[Rgb],
    *,
    limits: PixelLimits,
    size: tuple[int, int] | None = None,
    layout: PatchLayout = LAYOUT,
) -> Patches:
    """One grid from one picture (it fills both frames) or from two frames of one camera.

    Args:
        frames: one or two [height, width, 3] uint8 arrays.
        limits: of stills or of camera frames, perhaps capped.
        size: (height, width) to take all frames for, so that the grids of one item are equal even
            if the camera's size changes; None: they must be of one size.

    Raises:
        RequestError: not such frames, or a size that can not be served.
    """
    if not 1 <= len(frames) <= layout.temporal_patch_size:
        raise RequestError(f"{len(frames)} frames for a grid of {layout.temporal_patch_size}")
    for frame in frames:
        _check(frame)
    if size is None and len({frame.shape for frame in frames}) != 1:
        raise RequestError("the frames of a grid differ in size")
    height, width = size or frames[0].shape[:2]
    target = smart_resize(height, width, factor=layout.factor, limits=limits)
    scaled = [_scale(_resize(frame, target), layout) for frame in frames]
    scaled += [scaled[-1]] * (layout.temporal_patch_size - len(scaled))
    rows, columns = (side // layout.patch_size for side in target)
    return Patches(_cut(np.stack(scaled), layout), (rows, columns))


def _check(frame: Rgb) -> None:
    """Refuse what is no picture, or one too large to touch."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise RequestError(f"a frame must be [h, w, 3] uint8, not {frame.shape} {frame.dtype}")
    if not 0 < frame.shape[0] * frame.shape[1] <= MAX_PIXELS:
        raise RequestError(f"a frame of {frame.shape[1]} x {frame.shape[0]} pixels can not be used")


def _resize(frame: Rgb, target: tuple[int, int]) -> Rgb:
    if frame.shape[:2] == target:
        return frame
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((target[1], target[0]), Image.Resampling.BICUBIC))


def _scale(frame: Rgb, layout: PatchLayout) -> npt.NDArray[np.float32]:
    """[H, W, 3] uint8 -> [3, H, W] normalised float32."""
    scaled = frame.transpose(2, 0, 1).astype(np.float32)
    scaled *= np.float32(1 / 255)
    scaled -= np.float32(layout.mean)
    scaled /= np.float32(layout.std)
    return scaled


def _cut(frames: npt.NDArray[np.float32], layout: PatchLayout) -> npt.NDArray[np.float32]:
    """[frames, 3, H, W] -> patches by merge blocks, each (colour, frame, pixel row, column)."""
    num_frames, colours, height, width = frames.shape
    patch, merge = layout.patch_size, layout.spatial_merge_size
    rows, columns = height // layout.factor, width // layout.factor
    blocks = frames.reshape(num_frames, colours, rows, merge, patch, columns, merge, patch)
    # block row, block column, row and column in it, colour, frame, pixel row, pixel column
    ordered = blocks.transpose(2, 5, 3, 6, 1, 0, 4, 7)
    return np.ascontiguousarray(ordered).reshape(rows * columns * merge * merge, -1)


def _limits(path: Path, default: PixelLimits) -> PixelLimits:
    """Both spellings: `min_pixels` and `max_pixels`, or areas named edges in `size`."""
    try:
        raw: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        size = raw.get("size") or {}
        least = raw.get("min_pixels") or size.get("shortest_edge") or default.min_pixels
        most = raw.get("max_pixels") or size.get("longest_edge") or default.max_pixels
        return PixelLimits(min_pixels=int(least), max_pixels=int(most))
    except FileNotFoundError:
        return default
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"can not read {path}: {error}") from error
