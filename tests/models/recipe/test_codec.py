"""The codec: learnt from a seed, better with more books, framed as the vocoder expects."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.recipe.codec import FRAME_SAMPLES, Codec, learn_codec, patches
from models.recipe.spectra import log_mel, spectral_loss


def clip(seed: int, num_frames: int = 20) -> Tensor:
    """A tone that glides, with noise: unlike frames."""
    generator = torch.Generator().manual_seed(seed)
    length = num_frames * FRAME_SAMPLES
    hz = torch.linspace(100 + 50 * seed, 2000, length)
    tone = torch.sin(2 * torch.pi * torch.cumsum(hz / 24_000, 0))
    return 0.2 * tone + 0.01 * torch.randn(length, generator=generator)


CLIPS = [clip(seed) for seed in range(4)]


def learnt(num_quantizers: int = 3) -> Codec:
    return learn_codec(
        CLIPS, num_quantizers=num_quantizers, codebook_size=16, num_components=24, seed=0
    )


def test_more_books_lose_less() -> None:
    codec = learnt()
    errors = [
        Codec(mean=codec.mean, basis=codec.basis, books=codec.books[:count]).error(CLIPS[0])
        for count in (1, 2, 3)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_the_seed_is_the_codec(tmp_path: Path) -> None:
    codec = learnt()
    assert torch.equal(codec.encode(CLIPS[1]), learnt().encode(CLIPS[1]))
    codec.save(tmp_path / "codec.pt")
    assert torch.equal(Codec.load(tmp_path / "codec.pt").books, codec.books)


def test_codes_are_one_row_per_frame() -> None:
    codes = learnt().encode(CLIPS[0][: 3 * FRAME_SAMPLES + 1])
    assert codes.shape == (4, 3)
    assert int(codes.max()) < 16


def test_a_patch_is_the_spectrum_of_its_frame() -> None:
    """Sound in one frame alone is loudest in that frame's patch."""
    pcm = torch.zeros(5 * FRAME_SAMPLES)
    pcm[2 * FRAME_SAMPLES + 600 : 2 * FRAME_SAMPLES + 1300] = 0.5
    assert int(patches(pcm).mean(dim=1).argmax()) == 2
    assert log_mel(pcm).shape == (80, 40)


def test_the_loss_is_zero_for_the_same_sound_only() -> None:
    same = spectral_loss(CLIPS[0][None], CLIPS[0][None])
    other = spectral_loss(CLIPS[0][None], CLIPS[1][None])
    assert float(same) < 1e-5
    assert float(other) > 0.5
