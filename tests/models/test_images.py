"""Pictures -> patches: equal to the published processor; what can not be served is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    smart_resize as published_resize,
)

from models.content import Rgb
from models.errors import CheckpointError, RequestError
from models.qwen3_omni.images import (
    FRAME_LIMITS,
    IMAGE_LIMITS,
    PatchLayout,
    PixelLimits,
    patchify,
    read_pixel_limits,
    smart_resize,
)

SIZES = [(240, 320), (480, 640), (32, 32), (10, 1900), (333, 517), (20, 20), (64, 96), (1080, 620)]


def picture(height: int, width: int, seed: int = 0) -> Rgb:
    """Coarse colours with fine noise, so that resizing has edges and detail to get wrong."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    blown = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    noisy = blown + random.integers(-20, 21, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def published(rgb: Rgb, limits: PixelLimits) -> tuple[np.ndarray, tuple[int, int]]:
    """Patches and grid of a still picture as the published processor makes them."""
    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels},
    )
    made = processor(rgb, return_tensors="np")
    _, height, width = made["image_grid_thw"][0].tolist()
    return made["pixel_values"], (height, width)


@pytest.mark.parametrize("limits", [IMAGE_LIMITS, FRAME_LIMITS, IMAGE_LIMITS.capped(100_000)])
@pytest.mark.parametrize("size", SIZES)
def test_still_equals_published_processor(size: tuple[int, int], limits: PixelLimits) -> None:
    rgb = picture(*size)
    expected, grid = published(rgb, limits)
    patches, ours = patchify([rgb], limits=limits)
    assert ours == grid
    assert patches.dtype == np.float32
    np.testing.assert_allclose(patches, expected, atol=1e-6)


def test_pair_fills_its_two_frames() -> None:
    first, second = picture(240, 320), picture(240, 320, seed=1)
    patches, grid = patchify([first, second], limits=FRAME_LIMITS)
    assert grid == (20, 28)
    for frame, rgb in enumerate((first, second)):
        still, _ = patchify([rgb], limits=FRAME_LIMITS)
        own = patches.reshape(-1, 3, 2, 256)[:, :, frame]
        np.testing.assert_array_equal(own, still.reshape(-1, 3, 2, 256)[:, :, 0])


def test_size_makes_grids_of_a_changing_camera_equal() -> None:
    wide, tall = picture(240, 320), picture(320, 240)
    with pytest.raises(RequestError, match="differ"):
        patchify([wide, tall], limits=FRAME_LIMITS)
    patches, grid = patchify([wide, tall], limits=FRAME_LIMITS, size=(240, 320))
    assert grid == patchify([wide], limits=FRAME_LIMITS).size
    assert len(patches) == grid[0] * grid[1]


def test_slices_and_read_only_frames_are_taken() -> None:
    rgb = picture(96, 128)
    mirrored = rgb[:, ::-1]
    mirrored.flags.writeable = False
    patches, _ = patchify([mirrored], limits=IMAGE_LIMITS)
    copied, _ = patchify([mirrored.copy()], limits=IMAGE_LIMITS)
    np.testing.assert_array_equal(patches, copied)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 5_000),
    width=st.integers(1, 5_000),
    cap=st.sampled_from([20_000, 65_536, 786_432, 12_845_056]),
)
def test_smart_resize_is_the_published_one(height: int, width: int, cap: int) -> None:
    limits = IMAGE_LIMITS.capped(cap)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(RequestError, match="thin"):
            smart_resize(height, width, factor=32, limits=limits)
        return
    ours = smart_resize(height, width, factor=32, limits=limits)
    least, most = limits.min_pixels, limits.max_pixels
    assert ours == published_resize(height, width, 32, min_pixels=least, max_pixels=most)


@pytest.mark.parametrize(
    ("height", "width", "why"),
    [(0, 5, "no area"), (5, -1, "no area"), (9_000, 9_000, "large"), (2, 402, "thin")],
)
def test_absurd_sizes_are_refused(height: int, width: int, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        smart_resize(height, width, factor=32, limits=IMAGE_LIMITS)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [picture(32, 32)] * 3,
        [np.zeros((32, 32), np.uint8)],
        [np.zeros((32, 32, 4), np.uint8)],
        [np.zeros((32, 32, 3), np.float32)],
        [np.zeros((0, 32, 3), np.uint8)],
        [np.broadcast_to(np.uint8(0), (8_001, 8_001, 3))],
        [picture(32, 32), picture(32, 64)],
    ],
)
def test_what_is_no_grid_is_refused(frames: list[Rgb]) -> None:
    with pytest.raises(RequestError):
        patchify(frames, limits=IMAGE_LIMITS)


def test_layout_of_a_checkpoint(oracle: Oracle) -> None:
    assert PatchLayout.of(oracle.config.thinker.vision) == PatchLayout()


def test_cap_moves_the_minimum_too() -> None:
    capped = FRAME_LIMITS.capped(65_536)
    assert capped == PixelLimits(min_pixels=65_536, max_pixels=65_536)
    assert FRAME_LIMITS.capped(10**9) == FRAME_LIMITS


def test_limits_of_a_folder(tmp_path: Path) -> None:
    assert read_pixel_limits(tmp_path) == (IMAGE_LIMITS, FRAME_LIMITS)
    still = {"min_pixels": 1_024, "max_pixels": 65_536, "patch_size": 16}
    frame = {"size": {"shortest_edge": 2_048, "longest_edge": 4_096}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(still))
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(frame))
    assert read_pixel_limits(tmp_path) == (
        PixelLimits(min_pixels=1_024, max_pixels=65_536),
        PixelLimits(min_pixels=2_048, max_pixels=4_096),
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 5}', '{"min_pixels": "x"}'])
def test_damaged_limits_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        read_pixel_limits(tmp_path)
