"""What happens to speech before a model hears it: pauses, rooms, noise, levels, telephones.

Works on clips of 16 kHz; every function is deterministic in its `chance`. Codecs are simple models:
G.711 is its law and its band, Opus at a low rate is its band and coarse steps in short spectra.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np

from models.content import Pcm

SAMPLE_RATE_HZ = 16_000
MU = 255.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How hard a clip is made; each is the chance that it happens."""

    noise: float = 0.6
    room: float = 0.35
    clipping: float = 0.05
    codec: float = 0.35
    snr_db: tuple[float, float] = (5.0, 35.0)
    level_db: tuple[float, float] = (-38.0, -14.0)


CLEAN = Conditions(noise=0.0, room=0.0, clipping=0.0, codec=0.0, level_db=(-26.0, -20.0))


def in_noise(snr_db: float) -> Conditions:
    """Clean but for noise, always so much below the speech."""
    return replace(CLEAN, noise=1.0, snr_db=(snr_db, snr_db))


def recorded(pcm: Pcm, chance: random.Random, conditions: Conditions) -> Pcm:
    """Speech as a microphone and a line would deliver it; silence is added at both ends."""
    heard = with_edges(pcm, chance)
    if chance.random() < conditions.room:
        heard = reverberated(heard, chance)
    if chance.random() < conditions.noise:
        heard = noisy(heard, chance, chance.uniform(*conditions.snr_db))
    heard = at_level(heard, chance.uniform(*conditions.level_db))
    if chance.random() < conditions.clipping:
        limit = chance.uniform(0.2, 0.6) * float(np.abs(heard).max())
        heard = np.clip(heard, -limit, limit)
    if chance.random() < conditions.codec:
        heard = chance.choice((telephoned, compressed))(heard)
    return np.clip(heard, -1, 1).astype(np.float32)


def with_edges(pcm: Pcm, chance: random.Random) -> Pcm:
    """What endpointing leaves: up to 0.4 s before, 0.1 to 0.4 s behind."""
    before, after = chance.uniform(0.0, 0.4), chance.uniform(0.1, 0.4)
    return np.pad(pcm, (round(before * SAMPLE_RATE_HZ), round(after * SAMPLE_RATE_HZ)))


def with_pauses(parts: list[Pcm], chance: random.Random, longest_s: float = 0.5) -> Pcm:
    """Parts of one sentence with silence between them."""
    joined: list[Pcm] = []
    for part in parts:
        silence = round(chance.uniform(0.08, longest_s) * SAMPLE_RATE_HZ)
        joined += [part, np.zeros(silence, dtype=np.float32)]
    return np.concatenate(joined[:-1])


def at_level(pcm: Pcm, level_db: float) -> Pcm:
    """Scaled to this root mean square, in dB below full scale."""
    level = math.sqrt(float(np.mean(np.square(pcm)))) + 1e-9
    return (pcm * (10 ** (level_db / 20) / level)).astype(np.float32)


def noisy(pcm: Pcm, chance: random.Random, snr_db: float) -> Pcm:
    """With noise of some colour so much below the speech."""
    noise = coloured_noise(len(pcm), chance)
    power, own = float(np.mean(np.square(pcm))), float(np.mean(np.square(noise)))
    gain = math.sqrt(power / (own * 10 ** (snr_db / 10)) + 1e-12)
    return (pcm + gain * noise).astype(np.float32)


def coloured_noise(num_samples: int, chance: random.Random) -> Pcm:
    """Noise between white and brown, with a hum or a slow swell now and then."""
    generator = np.random.default_rng(chance.getrandbits(32))
    white = np.fft.rfft(generator.standard_normal(num_samples))
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE_HZ), 30.0)
    noise = np.fft.irfft(white * (frequencies / 1000.0) ** -chance.uniform(0.0, 1.0), num_samples)
    noise /= np.std(noise) + 1e-9
    times = np.arange(num_samples) / SAMPLE_RATE_HZ
    if chance.random() < 0.2:
        hum = chance.choice((50.0, 60.0, 120.0))
        noise = noise + sum(np.sin(2 * np.pi * hum * k * times) / k for k in (1, 2, 3))
    if chance.random() < 0.4:
        swell = chance.uniform(0.3, 3.0)
        noise = noise * (1.0 + 0.8 * np.sin(2 * np.pi * swell * times + chance.uniform(0, 6)))
    return noise.astype(np.float32)


def reverberated(pcm: Pcm, chance: random.Random) -> Pcm:
    """In a room of 0.1 to 0.6 s: a direct path and a decaying tail."""
    decay_s, wetness = chance.uniform(0.1, 0.6), chance.uniform(0.1, 0.5)
    length = round(decay_s * SAMPLE_RATE_HZ)
    generator = np.random.default_rng(chance.getrandbits(32))
    tail = generator.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail[: round(0.004 * SAMPLE_RATE_HZ)] = 0.0
    impulse = wetness * tail / (np.linalg.norm(tail) + 1e-9)
    impulse[0] = 1.0
    size = 1 << (len(pcm) + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(impulse, size), size)
    return wet[: len(pcm)].astype(np.float32)


def telephoned(pcm: Pcm) -> Pcm:
    """G.711: 300 to 3400 Hz, eight bits of mu-law."""
    banded = _band(pcm, 300.0, 3400.0)
    squeezed = np.sign(banded) * np.log1p(MU * np.minimum(1.0, np.abs(banded))) / math.log1p(MU)
    coarse = np.round(squeezed * 127) / 127
    return (np.sign(coarse) * np.expm1(np.abs(coarse) * math.log1p(MU)) / MU).astype(np.float32)


def compressed(pcm: Pcm, step: float = 0.12) -> Pcm:
    """As Opus at a low rate: spectra of 20 ms in steps relative to the loudest of each band."""
    size, hop = 640, 320
    padded = np.pad(pcm, (hop, size))
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    out = np.zeros_like(padded)
    for start in range(0, len(padded) - size, hop):
        spectrum = np.fft.rfft(padded[start : start + size] * window)
        for left in range(0, len(spectrum), 16):
            band = spectrum[left : left + 16]
            unit = step * float(np.abs(band).max()) + 1e-9
            spectrum[left : left + 16] = np.round(band / unit) * unit
        out[start : start + size] += np.fft.irfft(spectrum, size) * window
    return _band(out[hop : hop + len(pcm)], 0.0, 7000.0)


def _band(pcm: Pcm, low_hz: float, high_hz: float) -> Pcm:
    spectrum = np.fft.rfft(pcm)
    frequencies = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE_HZ)
    spectrum[(frequencies < low_hz) | (frequencies > high_hz)] = 0
    return np.fft.irfft(spectrum, len(pcm)).astype(np.float32)
