"""What a room, a line and a voice do to speech, done to its mel power: cheaper than to samples.

Works on raw log-mel features [bins, frames] (`models.qwen3_omni.mel`) as they are kept from pass to
pass, so that no sentence is heard twice the same. Powers of independent sounds add up, which makes
noise and echo sums; another speaker is a bend of the frequency axis. All that
`models.recipe.acoustics` does to samples is more exact, and used for a part of the sentences.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor
from torch.nn import functional as F

from models.qwen3_omni.mel import MIN_POWER, normalize

FRAMES_PER_S = 100
FRAMES_PER_KNOT = 12
NUM_CEPSTRA = 24
CEPSTRA_DB = 50.0  # below the loudest value what is quieter is no part of how a voice sounds
LOUD = 0.35  # of the way from a clip's lowest level to its highest: above it something is said
NARROW_BAND_BINS = (9, 100)  # of 128, about 300 to 3,400 Hz


def features(raw: Tensor) -> Tensor:
    """What the encoder is given of a whole clip, undisturbed."""
    return normalize(raw, float(raw.max()))


def disturbed_features(raw: Tensor, chance: random.Random) -> Tensor:
    """The same of a clip as it may sound somewhere else, said by somebody else."""
    raw = _bent(raw.float(), chance)
    if chance.random() < 0.5:
        raw = accented(raw, chance)
    power = 10 ** _smoothed(raw, chance)
    if chance.random() < 0.6:
        power = power * _tilt(power.shape[0], chance)
    if chance.random() < 0.3:
        power = _echoed(power, chance)
    if chance.random() < 0.6:
        power = power + _noise(power, chance)
    if chance.random() < 0.25:
        power = _narrowed(power)
    return _masked(features(power.clamp(min=MIN_POWER).log10()), chance)


def _bent(raw: Tensor, chance: random.Random) -> Tensor:
    """Another vocal tract, another speed, neither the same all along: synthesizers differ in where
    their formants lie and in how long they hold which sound.
    """
    bins, frames = raw.shape
    if chance.random() < 0.75:
        curve = _curve(bins, 5, chance.uniform(-0.17, 0.18), 0.06, chance).exp()
        raw = _read_at(raw, curve.cumsum(0) - curve[0])
    if chance.random() < 0.75:
        steps = _curve(frames, 2 + frames // FRAMES_PER_KNOT, 0.0, 0.25, chance).exp()
        places = steps.cumsum(0) - steps[0]
        length = max(2, round(frames * chance.uniform(0.82, 1.2)))
        spread = torch.linspace(0, frames - 1, length)
        # Where each of the new frames lies: the curve's inverse, read linearly.
        places = places * ((frames - 1) / max(1e-6, float(places[-1])))
        upper = torch.searchsorted(places.contiguous(), spread).clamp(1, frames - 1)
        low, high = places[upper - 1], places[upper]
        share = ((spread - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        raw = _read_at(raw.t(), upper - 1 + share).t()
    return raw


def accented(raw: Tensor, chance: random.Random) -> Tensor:
    """Every sound said a little differently: mostly the same way all along, partly adrift.

    What the ear takes for other words in a voice that is new to it is neither its timing nor its
    pitch, its vocal tract or its loudness over frequency: in that voice's own timing, the spectra
    of a voice that is known are understood. So cepstra are turned towards one another by a matrix
    that is drawn for the clip, as an accent changes vowels.
    """
    bins, frames = raw.shape
    places = torch.arange(bins) + 0.5
    waves = torch.cos(torch.pi / bins * places * torch.arange(NUM_CEPSTRA)[:, None])
    cepstra = 2 / bins * waves @ raw.clamp(min=raw.max() - CEPSTRA_DB / 10)  # [c, frames]
    level = cepstra[0]
    is_said = level >= level.min() + LOUD * (level.max() - level.min())
    mean = cepstra[:, is_said].mean(dim=1, keepdim=True)
    spread = cepstra[:, is_said].std(dim=1, keepdim=True, correction=0).clamp(min=1e-3)
    generator = torch.Generator().manual_seed(chance.getrandbits(31))
    turn = torch.randn(NUM_CEPSTRA, NUM_CEPSTRA, generator=generator) / math.sqrt(NUM_CEPSTRA)
    knots = torch.randn(1, NUM_CEPSTRA, 2 + frames // FRAMES_PER_KNOT, generator=generator)
    drift = F.interpolate(knots, size=frames, mode="linear", align_corners=True)[0]
    change = chance.uniform(0.2, 1.0) * turn @ ((cepstra - mean) / spread).clamp(-2.5, 2.5)
    change = spread * (change + chance.uniform(0.0, 0.8) * drift)
    change[0] = 0.0  # as loud as before
    return raw + waves.t() @ change


def _curve(length: int, knots: int, mean: float, spread: float, chance: random.Random) -> Tensor:
    """[length], smooth through values drawn at so many knots."""
    drawn = torch.tensor([[[chance.gauss(mean, spread) for _ in range(knots)]]])
    return F.interpolate(drawn, size=length, mode="linear", align_corners=True)[0, 0]


def _read_at(rows: Tensor, places: Tensor) -> Tensor:
    """Rows between the given ones, [n, ...] at [m] places -> [m, ...]."""
    places = places.clamp(0, len(rows) - 1)
    low = places.floor().long()
    share = (places - low)[:, None]
    return rows[low] * (1 - share) + rows[(low + 1).clamp(max=len(rows) - 1)] * share


def _smoothed(raw: Tensor, chance: random.Random) -> Tensor:
    """Without the harmonics of the voice, as other synthesizers' voices have others."""
    if chance.random() > 0.35:
        return raw
    reach = chance.randint(1, 3)
    kernel = torch.hann_window(2 * reach + 3)[1:-1]
    padded = F.pad(raw.t()[:, None], (reach, reach), mode="replicate")  # [frames, 1, bins]
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0].t()


def _tilt(bins: int, chance: random.Random) -> Tensor:
    """A microphone: a smooth curve of some dB, [bins, 1]."""
    return 10 ** (_curve(bins, 6, 0.0, 5.0, chance) / 10)[:, None]


def _echoed(power: Tensor, chance: random.Random) -> Tensor:
    """A tail behind every sound."""
    decay_s, share = chance.uniform(0.1, 0.6), chance.uniform(0.03, 0.3)
    length = round(decay_s * FRAMES_PER_S)
    tail = torch.exp(-13.8 * torch.arange(1, length + 1) / length)  # 60 dB
    kernel = torch.cat([torch.ones(1), share * tail / tail.sum()])
    padded = F.pad(power[:, None], (length, 0))
    return F.conv1d(padded, kernel.flip(0)[None, None])[:, 0]


def _noise(power: Tensor, chance: random.Random) -> Tensor:
    """Noise of some colour, steady or swelling, so much below the speech."""
    bins, frames = power.shape
    generator = torch.Generator().manual_seed(chance.getrandbits(31))
    slope = chance.uniform(-3.0, 0.5)  # decades over the axis
    colour = 10 ** (slope * torch.linspace(0, 1, bins))[:, None] * _tilt(bins, chance)
    # Few transform bins make a mel bin: its power is far from smooth.
    grain = -torch.rand(2, bins, frames, generator=generator).clamp(min=1e-6).log().mean(0)
    noise = colour * grain
    if chance.random() < 0.4:
        rate, phase = chance.uniform(0.3, 4.0), chance.uniform(0, 2 * math.pi)
        times = torch.arange(frames) / FRAMES_PER_S
        noise = noise * (1 + 0.9 * torch.sin(2 * math.pi * rate * times + phase))
    ratio = 10 ** (-chance.uniform(3.0, 35.0) / 10)
    return noise * (ratio * power.mean() / noise.mean())


def _narrowed(power: Tensor) -> Tensor:
    """A telephone."""
    kept = torch.full((power.shape[0], 1), 1e-5)
    kept[NARROW_BAND_BINS[0] : NARROW_BAND_BINS[1]] = 1.0
    return power * kept


def _masked(mel: Tensor, chance: random.Random) -> Tensor:
    """Without some bands and some moments, so that no single cue is relied on."""
    mel = mel.clone()
    low = mel.min()
    for _ in range(2):
        width = chance.randint(0, 14)
        start = chance.randint(0, mel.shape[0] - width)
        mel[start : start + width] = low
    if mel.shape[1] > 40:
        width = chance.randint(0, 8)
        start = chance.randint(0, mel.shape[1] - width)
        mel[:, start : start + width] = low
    return mel
