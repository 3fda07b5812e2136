"""Sounds that are no speech, and what a room does to speech. Deterministic in their `chance`."""

from __future__ import annotations

import random

import numpy as np

from pipeline.messages import ENGINE_INPUT_HZ, Pcm


def at_level(pcm: Pcm, level_db: float) -> Pcm:
    """Scaled so that the root mean square of its loud part (20 ms frames within 25 dB of the
    loudest) is this, in dB below full scale.
    """
    frames = pcm[: len(pcm) // 320 * 320].reshape(-1, 320) if len(pcm) >= 320 else pcm[None]
    power = np.mean(np.square(frames.astype(np.float64)), axis=1)
    loud = power[power > power.max() / 316]
    gain = 10 ** (level_db / 20) / (np.sqrt(loud.mean()) + 1e-9) if len(loud) else 0.0
    return np.clip(pcm * gain, -1, 1).astype(np.float32)


def noise(num_samples: int, chance: random.Random, *, tilt: float | None = None) -> Pcm:
    """Coloured noise of unit power: `tilt` 0 is white, 1 is brown."""
    generator = np.random.default_rng(chance.getrandbits(32))
    spectrum = np.fft.rfft(generator.standard_normal(num_samples))
    hz = np.maximum(np.fft.rfftfreq(num_samples, 1 / ENGINE_INPUT_HZ), 40.0)
    shaped = spectrum * (hz / 1000) ** -(chance.uniform(0.0, 1.0) if tilt is None else tilt)
    made = np.fft.irfft(shaped, num_samples)
    return (made / (np.std(made) + 1e-9)).astype(np.float32)


def cough(chance: random.Random) -> Pcm:
    """One to three bursts of shaped noise, each with a sharp attack, a formant and a short voiced
    end.
    """
    bursts: list[Pcm] = []
    for _ in range(chance.randint(1, 3)):
        length = round(chance.uniform(0.12, 0.3) * ENGINE_INPUT_HZ)
        times = np.arange(length) / length
        envelope = np.minimum(1, times / 0.06) * np.exp(-chance.uniform(3, 6) * times)
        burst = _formant(noise(length, chance, tilt=0.3), chance.uniform(500, 1400))
        pulse_hz = chance.uniform(90, 260)
        pulses = np.sign(np.sin(2 * np.pi * pulse_hz * np.arange(length) / ENGINE_INPUT_HZ))
        voiced = _formant(pulses.astype(np.float32), chance.uniform(400, 900))
        burst = burst + chance.uniform(0.0, 0.6) * voiced * (times > 0.5)
        gap = np.zeros(round(chance.uniform(0.05, 0.25) * ENGINE_INPUT_HZ))
        bursts += [np.asarray(burst * envelope, np.float32), np.asarray(gap, np.float32)]
    return np.concatenate(bursts[:-1]).astype(np.float32)


def clatter(chance: random.Random) -> Pcm:
    """A noise of the room: knocks, rustling, or a steady machine."""
    kind = chance.choice(("knocks", "rustle", "machine"))
    length = round(chance.uniform(0.3, 1.2) * ENGINE_INPUT_HZ)
    times = np.arange(length) / ENGINE_INPUT_HZ
    if kind == "machine":
        return noise(length, chance, tilt=0.8)
    if kind == "rustle":
        swell = np.abs(np.sin(2 * np.pi * chance.uniform(2, 7) * times + chance.uniform(0, 6)))
        return (noise(length, chance, tilt=0.0) * swell).astype(np.float32)
    made = np.zeros(length)
    for _ in range(chance.randint(2, 5)):
        start = chance.randrange(length)
        decay = np.exp(-np.arange(length - start) / (ENGINE_INPUT_HZ * 0.02))
        ring = np.sin(2 * np.pi * chance.uniform(150, 900) * times[: length - start])
        made[start:] += decay * (ring + 0.5 * noise(length - start, chance))
    return made.astype(np.float32)


def warped(pcm: Pcm, factor: float) -> Pcm:
    """By a throat of another size: pitch, formants and speed times `factor`."""
    if factor == 1.0:
        return pcm
    where = np.arange(0, len(pcm) - 1, factor)
    return np.asarray(np.interp(where, np.arange(len(pcm)), pcm), np.float32)


def in_room(pcm: Pcm, chance: random.Random, *, wetness: float) -> Pcm:
    """From afar: a direct path and a decaying tail of `wetness` times its power."""
    length = round(chance.uniform(0.15, 0.5) * ENGINE_INPUT_HZ)
    generator = np.random.default_rng(chance.getrandbits(32))
    impulse = generator.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    impulse *= wetness / (np.linalg.norm(impulse) + 1e-9)
    impulse[0] = 1.0
    size = 1 << (len(pcm) + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(impulse, size), size)
    return wet[: len(pcm) + length].astype(np.float32)


def _formant(pcm: Pcm, centre_hz: float) -> Pcm:
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1 / ENGINE_INPUT_HZ)
    shape = 1 / (1 + ((hz - centre_hz) / 300) ** 2) + 0.3 / (
        1 + ((hz - 2.6 * centre_hz) / 700) ** 2
    )
    return np.fft.irfft(spectrum * shape, len(pcm)).astype(np.float32)
