"""Spectra that can be differentiated: log-mel for the codec, and the losses of the vocoder.

Everything is float32 on the device of its input. Frames are centred; the rate is 24 kHz. The
thinker's own features are elsewhere (`models.qwen3_omni.mel`).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE_HZ = 24_000
HOP_SAMPLES = 240
NUM_MEL_BINS = 80
N_FFT = 1024
MIN_MAGNITUDE = 1e-4
RESOLUTIONS = ((2048, 480), (1024, 240), (512, 120), (256, 60))


def log_mel(pcm: Tensor) -> Tensor:
    """[..., n] -> [..., NUM_MEL_BINS, n // HOP_SAMPLES]; frame t is centred on sample 240 t."""
    magnitude = _magnitude(pcm, N_FFT, HOP_SAMPLES)
    mel = _mel_bank().to(pcm.device) @ magnitude
    return mel.clamp(min=MIN_MAGNITUDE).log()[..., : pcm.shape[-1] // HOP_SAMPLES]


def spectral_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """How far [B, n] sounds from [B, n]: magnitudes at four resolutions, and log-mel."""
    total = (log_mel(made) - log_mel(wanted)).abs().mean()
    for n_fft, hop in RESOLUTIONS:
        a, b = _magnitude(made, n_fft, hop), _magnitude(wanted, n_fft, hop)
        convergence = (a - b).norm() / b.norm().clamp(min=1e-3)
        logarithmic = (_log(a) - _log(b)).abs().mean()
        total = total + (convergence + logarithmic) / len(RESOLUTIONS)
    return total


def _log(magnitude: Tensor) -> Tensor:
    return (magnitude + 1e-3).log()


def _magnitude(pcm: Tensor, n_fft: int, hop: int) -> Tensor:
    padded = F.pad(pcm, (n_fft // 2, n_fft // 2))
    spectrum = torch.stft(
        padded,
        n_fft,
        hop,
        window=torch.hann_window(n_fft, device=pcm.device),
        center=False,
        return_complex=True,
    )
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


@cache
def _mel_bank() -> Tensor:
    """[NUM_MEL_BINS, N_FFT / 2 + 1] triangles, equal in area, on the mel scale."""
    frequencies = np.linspace(0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1)
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, NUM_MEL_BINS + 2) / 2595) - 1)
    left, middle, right = points[:-2, None], points[1:-1, None], points[2:, None]
    rising = (frequencies - left) / (middle - left)
    falling = (right - frequencies) / (right - middle)
    bank = np.maximum(0, np.minimum(rising, falling))
    bank /= np.maximum(bank.sum(axis=1, keepdims=True), 1e-8)
    return torch.tensor(bank, dtype=torch.float32)
