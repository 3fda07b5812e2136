"""Steady noise taken out of 16 kHz speech: a fan, traffic, the hiss of a microphone.

Streaming, any chunking giving the same samples: output sample k speaks of the moment of input
sample k and comes at most `MAX_DELAY_SAMPLES` (16 ms) later. Voices and music beside the speaker
are no steady noise and stay.

Each 8 ms a spectrum of the last 32 ms is taken by windows of which only the falling edge is short:
they look between the harmonics of a voice at the delay of a short transform (Mauler and Martin,
2007). The noise in each bin follows the probability that there is no speech in it (Gerkmann and
Hendriks, 2012); until enough was heard it is the least that was, and never much. Each bin is turned
down by Wiener's gain with a decision-directed signal-to-noise ratio (Scalart and Filho, 1996), and
by `max_suppression_db` at most, so that what remains sounds even.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.messages import Pcm
from pipeline.session_config import NoiseReduction

USUAL_SUPPRESSION_DB = {"near_field": 12.0, "far_field": 20.0}
MAX_SUPPRESSION_DB = 40.0  # what is left is below what any microphone hears
HOP_SAMPLES = 128
FRAME_SAMPLES = 512
MAX_DELAY_SAMPLES = 2 * HOP_SAMPLES - 1

Powers = npt.NDArray[np.float64]  # [FRAME_SAMPLES / 2 + 1], one a bin
Samples = npt.NDArray[np.float64]


def _windows() -> tuple[Samples, Samples]:
    """Of analysis and synthesis; their product is a Hann window over the last two hops."""
    slow = (np.arange(FRAME_SAMPLES - HOP_SAMPLES) + 0.5) / (FRAME_SAMPLES - HOP_SAMPLES)
    fast = (np.arange(HOP_SAMPLES) + 0.5) / HOP_SAMPLES
    falling = np.cos(np.pi / 2 * fast)
    analysis = np.concatenate([np.sin(np.pi / 2 * slow), falling])
    rising = np.sin(np.pi / 2 * fast) ** 2 / analysis[-2 * HOP_SAMPLES : -HOP_SAMPLES]
    return analysis, np.concatenate([rising, falling])


_ANALYSIS, _SYNTHESIS = _windows()
_FULL_SCALE = float(_ANALYSIS @ _ANALYSIS)  # power of a bin where white noise has 0 dB
_SILENCE = 1e-10 * _FULL_SCALE  # -100 dB: less is no sound of a microphone
_MAX_FIRST_NOISE = 1e-4 * _FULL_SCALE  # -40 dB: what is louder may be a voice
_SETTLING_FRAMES = FRAME_SAMPLES // HOP_SAMPLES  # until a frame is full
_FIRST_FRAMES = _SETTLING_FRAMES + 12
_FIRST_SMOOTHING = 0.7
_SPEECH_SNR = 10 ** (15 / 10)  # of a bin with speech in it
_NOISE_SMOOTHING, _PRESENCE_SMOOTHING = 0.8, 0.95
_MAX_PRESENCE = 0.99  # speech that never ends is noise
_DECISION = 0.98  # how much of a bin's ratio is that of the frame before
_MAX_RATIO = 1e6


def max_suppression_db(wanted: NoiseReduction) -> float:
    """How far noise is turned down; in a room further, for there is more of it."""
    return min(USUAL_SUPPRESSION_DB[wanted.place] * wanted.strength, MAX_SUPPRESSION_DB)


class NoiseTracker:
    """How much noise there is in each bin."""

    def __init__(self) -> None:
        num_bins = FRAME_SAMPLES // 2 + 1
        self.noise: Powers = np.full(num_bins, _SILENCE)
        self._presence: Powers = np.zeros(num_bins)
        self._least: Powers = np.full(num_bins, np.inf)
        self._smooth: Powers | None = None
        self._num_frames = 0

    def feed(self, power: Powers) -> None:
        """Take the next frame. One without any sound, of a muted microphone, teaches nothing."""
        if power.mean() < _SILENCE:
            return
        if self._num_frames < _FIRST_FRAMES:
            self._begin(power)
        ratio = np.minimum(power / self.noise, _MAX_RATIO)
        doubt = (1 + _SPEECH_SNR) * np.exp(-ratio * _SPEECH_SNR / (1 + _SPEECH_SNR))
        speech = 1 / (1 + doubt)
        self._presence += (1 - _PRESENCE_SMOOTHING) * (speech - self._presence)
        is_stuck = self._presence > _MAX_PRESENCE
        speech = np.where(is_stuck, np.minimum(speech, _MAX_PRESENCE), speech)
        step = (1 - _NOISE_SMOOTHING) * (1 - speech)
        self.noise = np.maximum(self.noise + step * (power - self.noise), _SILENCE)

    def _begin(self, power: Powers) -> None:
        self._num_frames += 1
        if self._num_frames <= _SETTLING_FRAMES:
            return
        if self._smooth is None:
            self._smooth = power
        self._smooth = _FIRST_SMOOTHING * self._smooth + (1 - _FIRST_SMOOTHING) * power
        self._least = np.minimum(self._least, self._smooth)
        self.noise = np.clip(self._least, _SILENCE, _MAX_FIRST_NOISE)


class NoiseSuppressor:
    """One stream of microphone sound.

    `max_suppression_db`: how far noise is turned down, may change at any time; 0: not at all.
    """

    def __init__(self, max_suppression_db: float) -> None:
        self.max_suppression_db = max_suppression_db
        self._tracker = NoiseTracker()
        self._speech: Powers = np.zeros(FRAME_SAMPLES // 2 + 1)
        self._begin()

    def _begin(self) -> None:
        self._heard: Pcm = np.zeros(FRAME_SAMPLES, np.float32)  # the last frame, and what waits
        self._overlap: Samples = np.zeros(HOP_SAMPLES)
        self._is_begun = False

    def push(self, pcm: Pcm) -> Pcm:
        """Take more samples, [num_samples] float32; returns what is ready, perhaps nothing."""
        self._heard = np.concatenate([self._heard, pcm])
        ready = [np.zeros(0, np.float32)]
        while len(self._heard) >= FRAME_SAMPLES + HOP_SAMPLES:
            self._heard = self._heard[HOP_SAMPLES:]
            hop = self._filter(self._heard[:FRAME_SAMPLES])
            if self._is_begun:
                ready.append(hop)
            self._is_begun = True  # the first one speaks of before the beginning
        return np.concatenate(ready)

    def flush(self) -> Pcm:
        """The rest. What is pushed next begins another stream in the same noise."""
        num_left = len(self._heard) - FRAME_SAMPLES + (HOP_SAMPLES if self._is_begun else 0)
        rest = self.push(np.zeros(2 * HOP_SAMPLES, np.float32))[:num_left]
        self._begin()
        return rest

    def _filter(self, frame: Pcm) -> Pcm:
        """The hop before the newest one, filtered."""
        spectrum = np.fft.rfft(frame * _ANALYSIS)
        gain = self._gain(np.square(spectrum.real) + np.square(spectrum.imag))
        new = np.fft.irfft(spectrum * gain)[-2 * HOP_SAMPLES :] * _SYNTHESIS
        ready = self._overlap + new[:HOP_SAMPLES]
        self._overlap = new[HOP_SAMPLES:]
        return ready.astype(np.float32)

    def _gain(self, power: Powers) -> Powers:
        self._tracker.feed(power)
        noise = self._tracker.noise
        least = 10 ** (-self.max_suppression_db / 20)
        excess = np.clip(power / noise - 1, 0, _MAX_RATIO)
        ratio = _DECISION * self._speech / noise + (1 - _DECISION) * excess
        gain = np.maximum(ratio / (1 + ratio), least)
        self._speech = np.square(gain) * power
        return gain
