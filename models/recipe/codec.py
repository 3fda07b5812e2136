"""Speech of one voice -> codes at 12.5 Hz: residual vector quantisation of log-mel patches.

A patch is the log-mel of 80 ms. Patches are projected on their principal components; each quantizer
is k-means on what the ones before have left. The talker learns to predict these codes, and the
vocoder to sound like what they were made from, so nothing of this is in the checkpoint. There is
no decoder here: that is `Code2Wav`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.recipe.spectra import HOP_SAMPLES, NUM_MEL_BINS, log_mel

FRAME_SAMPLES = 1920
PATCH_HOPS = FRAME_SAMPLES // HOP_SAMPLES
NUM_ITERATIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A learnt codec.

    Attributes:
        mean: [P] of patches. basis: [P, D], orthonormal columns.
        books: [num_quantizers, codebook_size, D].
    """

    mean: Tensor
    basis: Tensor
    books: Tensor

    def encode(self, pcm: Tensor) -> Tensor:
        """[n] samples -> [ceil(n / FRAME_SAMPLES), num_quantizers] int64; the end is padded."""
        rest = (patches(pcm) - self.mean) @ self.basis
        codes = []
        for book in self.books:
            nearest = torch.cdist(rest, book).argmin(dim=1)
            rest = rest - book[nearest]
            codes.append(nearest)
        return torch.stack(codes, dim=1)

    def error(self, pcm: Tensor) -> float:
        """Share of the patches' variance that the codes lose."""
        wanted = patches(pcm) - self.mean
        codes = self.encode(pcm)
        points = self.books[torch.arange(len(self.books)), codes].sum(dim=1)  # [n, D]
        return float((wanted - points @ self.basis.T).square().sum() / wanted.square().sum())

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        unfinished = path.with_suffix(".new")
        torch.save(asdict(self), unfinished)
        unfinished.rename(path)

    @classmethod
    def load(cls, path: Path) -> Codec:
        """Read what `save` wrote."""
        return cls(**torch.load(path, weights_only=True))


def patches(pcm: Tensor) -> Tensor:
    """[n] samples -> [ceil(n / FRAME_SAMPLES), PATCH_HOPS * NUM_MEL_BINS]."""
    short = -len(pcm) % FRAME_SAMPLES
    mel = log_mel(torch.cat([pcm, pcm.new_zeros(short)]))  # [bins, hops]
    return mel.T.reshape(-1, PATCH_HOPS * NUM_MEL_BINS)


def learn_codec(
    clips: Sequence[Tensor],
    *,
    num_quantizers: int,
    codebook_size: int,
    num_components: int,
    seed: int,
) -> Codec:
    """Learn from clips [n] at 24 kHz; needs at least `codebook_size` patches."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.cat([patches(clip) for clip in clips])
    mean = points.mean(dim=0)
    covariance = (points - mean).T @ (points - mean)
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -num_components:].flip(1)
    rest = (points - mean) @ basis
    books = []
    for _ in range(num_quantizers):
        book = _k_means(rest, codebook_size, generator)
        rest = rest - book[torch.cdist(rest, book).argmin(dim=1)]
        books.append(book)
    return Codec(mean=mean, basis=basis.contiguous(), books=torch.stack(books))


def _k_means(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres [count, D]; one that lost all its points starts again at some point."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(NUM_ITERATIONS):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)[:, None]
        others = points[torch.randint(len(points), (count,), generator=generator)]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), others)
    return centres
