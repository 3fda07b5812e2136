"""What `omnid bench engine` asks: spoken noise, and pictures that are like no other."""

from __future__ import annotations

import numpy as np

from models.content import Pcm, Rgb

QUESTION_S = 2.0
CHUNK_SAMPLES = 3200
CAMERA_SAMPLES = 8000  # two frames a second


def picture(seed: int) -> Rgb:
    """A camera frame that is like no other."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (240, 320, 3), dtype=np.uint8)


def noise(seconds: float) -> Pcm:
    """Noise of a speech-like level, always the same."""
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(round(16_000 * seconds))).astype(np.float32)
