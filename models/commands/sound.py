"""What can be heard of speech without understanding it: its level, clipping, and noise."""

from __future__ import annotations

import numpy as np

from models.content import Pcm16

SPEECH_DBFS = (-60.0, -6.0)  # below it is silence, above it is noise or clipping
FULL_SCALE = 32767
MAX_CLIPPED = 0.001
NOISE_FLATNESS = 0.1  # clear speech stays below 0.04, white noise is above 0.85
BLOCK_SAMPLES = 480


def sound_faults(pcm: Pcm16) -> tuple[str, ...]:
    """What is wrong with the level of speech."""
    if not len(pcm):
        return ("it is not spoken",)
    level, (low, high) = level_dbfs(pcm), SPEECH_DBFS
    if level < low:
        return (f"it is silent: {level:.1f} dBFS",)
    faults = []
    if level > high:
        faults.append(f"it is too loud: {level:.1f} dBFS; speech stays below {high:g}")
    clipped = float(np.mean(np.abs(pcm.astype(np.int32)) >= FULL_SCALE))
    if clipped > MAX_CLIPPED:
        faults.append(f"it is clipped: {clipped:.1%} of its samples are at full scale")
    return tuple(faults)


def level_dbfs(pcm: Pcm16) -> float:
    """Root mean square of 16-bit samples below full scale; -inf of silence."""
    if not len(pcm):
        return float("-inf")
    power = float(np.mean(np.square(pcm.astype(np.float64) / 32768)))
    return 10 * float(np.log10(power)) if power else float("-inf")


def flatness(pcm: Pcm16) -> float:
    """Of the mean power spectrum, the geometric over the arithmetic mean: 1 where all frequencies
    are as strong, as in white noise; 0 of silence and of less than one block.
    """
    whole = len(pcm) // BLOCK_SAMPLES * BLOCK_SAMPLES
    if not pcm[:whole].any():
        return 0.0
    sound = pcm[:whole] - np.mean(pcm[:whole])  # a steady offset is none
    blocks = sound.reshape(-1, BLOCK_SAMPLES) * np.hanning(BLOCK_SAMPLES)
    spectra = np.fft.rfft(blocks)[:, 1:]
    power = np.maximum(np.mean(np.square(np.abs(spectra)), axis=0), 1e-9)
    return float(np.exp(np.mean(np.log(power))) / np.mean(power))
