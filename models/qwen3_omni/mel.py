"""Log-mel features of 16 kHz speech: a whole clip, or as samples arrive.

Frame t looks at samples 160 t - 200 .. 160 t + 199; past both ends of the clip the signal is
mirrored. So every frame but the last few of a clip is final as soon as its samples are there, and
only the very end needs `finish`.

Raw values (log10 of mel power) are kept apart from `normalize`, because its clamp at 80 dB below
the loudest value is the one step that looks at the whole clip. Two policies for that peak:

- whole clip: `peak` of the clip (what the reference does; used wherever the clip is known);
- live: `running_peak`, the loudest value so far but never below a floor, for frames that must be
final now.

Does not resample and does not detect speech. Source: the published Whisper feature extractor
(Slaney mel bank).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.content import Pcm
from models.errors import RequestError

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
N_FFT = 400
EDGE_SAMPLES = N_FFT // 2
MIN_POWER = 1e-10
SILENCE = -10.0  # log10 of MIN_POWER: the lowest raw value
DYNAMIC_RANGE = 8.0  # log10 units under the peak that are kept: 80 dB
MAX_ABS_SAMPLE = 8.0  # 18 dB over full scale: resampler overshoot passes, garbage can not overflow


def num_frames(num_samples: int) -> int:
    """Frames of a finished clip of `num_samples`."""
    return num_samples // HOP_SAMPLES


def num_final_frames(num_samples: int) -> int:
    """Frames that later samples can not change any more."""
    return max(0, (num_samples - EDGE_SAMPLES) // HOP_SAMPLES + 1)


def normalize(raw: Tensor, peak: float) -> Tensor:
    """Raw log-mel -> encoder features: clamped 80 dB below `peak`, then shifted and scaled."""
    return (raw.clamp(min=peak - DYNAMIC_RANGE) + 4.0) / 4.0


def clean_pcm(pcm: Pcm) -> Pcm:
    """Samples fit for the transform: NaN and infinity become silence, absurd amplitudes are cut.

    Raises:
        RequestError: not one channel of float32.
    """
    if pcm.ndim != 1 or pcm.dtype != np.float32:
        raise RequestError(f"audio must be [n] float32, not {list(pcm.shape)} {pcm.dtype}")
    if pcm.size and not (np.isfinite(pcm).all() and np.abs(pcm).max() <= MAX_ABS_SAMPLE):
        finite = np.where(np.isfinite(pcm), pcm, np.float32(0.0))
        return np.clip(finite, -MAX_ABS_SAMPLE, MAX_ABS_SAMPLE).astype(np.float32)
    return pcm


class LogMel:
    """The transform itself: Hann window and mel bank, on the CPU. One serves all streams."""

    def __init__(self, num_mel_bins: int = 128) -> None:
        self.num_mel_bins = num_mel_bins
        self._window = torch.hann_window(N_FFT, device="cpu")
        self._bank = torch.from_numpy(mel_bank(num_mel_bins))  # [num_mel_bins, 201]

    def raw_frames(self, padded: Pcm) -> Tensor:
        """Whole frames of a signal that already has its edges: raw log-mel [num_mel_bins, n]."""
        count = max(0, (len(padded) - N_FFT) // HOP_SAMPLES + 1)
        if not count:
            return torch.zeros(self.num_mel_bins, 0, device="cpu")
        frames = torch.from_numpy(padded).unfold(0, N_FFT, HOP_SAMPLES)  # [n, 400]
        power = torch.fft.rfft(frames * self._window).abs().square()  # [n, 201]
        mel = self._bank @ power.T  # [num_mel_bins, n]
        raw: Tensor = mel.clamp_(min=MIN_POWER).log10_()
        return raw

    def raw_clip(self, pcm: Pcm) -> Tensor:
        """Raw log-mel of a finished clip [num_mel_bins, num_frames(len(pcm))]."""
        stream = MelStream(self)
        return torch.cat([stream.push(pcm), stream.finish()], dim=1)

    def clip(self, pcm: Pcm) -> Tensor:
        """Encoder features of a finished clip, normalised by its own peak: [num_mel_bins, n]."""
        raw = self.raw_clip(pcm)
        return normalize(raw, float(raw.max())) if raw.shape[1] else raw


@dataclass(slots=True, kw_only=True)
class MelState:
    """Where a stream is. `pending` holds the samples from the next frame's left edge on."""

    pending: Pcm
    num_samples: int = 0
    num_frames: int = 0
    peak: float = SILENCE


class MelStream:
    """Raw log-mel frames of one clip, as its samples arrive in pieces of any size.

    `copy_state` and `restore` cut the stream back to an earlier sample: a state is about two
    kilobytes.
    """

    def __init__(self, log_mel: LogMel, *, peak_floor: float = SILENCE) -> None:
        """`peak_floor`: raw level of earlier speech, so that silence is not taken for speech."""
        self._log_mel = log_mel
        self.peak_floor = peak_floor
        self._state = MelState(pending=np.zeros(0, np.float32))

    @property
    def num_samples(self) -> int:
        """Samples received."""
        return self._state.num_samples

    @property
    def num_frames(self) -> int:
        """Frames given out by `push`."""
        return self._state.num_frames

    @property
    def peak(self) -> float:
        """Loudest raw value of the frames given out by `push`."""
        return self._state.peak

    @property
    def running_peak(self) -> float:
        """The live policy's peak: the loudest value so far, but not below the floor."""
        return max(self._state.peak, self.peak_floor)

    def copy_state(self) -> MelState:
        """The stream's position, unaffected by what follows."""
        return replace(self._state, pending=self._state.pending.copy())

    def restore(self, state: MelState) -> None:
        """Go back to a copied position; frames given out since are void. `state` stays usable."""
        self._state = replace(state, pending=state.pending.copy())

    def push(self, pcm: Pcm) -> Tensor:
        """Take samples; returns the raw frames that became final [num_mel_bins, n], n may be 0.

        `pcm` is 16 kHz mono float32; NaN and infinity count as silence.

        Raises:
            RequestError: not one channel of float32; nothing was taken.
        """
        state, pcm = self._state, clean_pcm(pcm)
        had_edge = state.num_samples >= EDGE_SAMPLES
        state.pending = np.concatenate([state.pending, pcm])
        state.num_samples += len(pcm)
        if state.num_samples < EDGE_SAMPLES:
            return self._log_mel.raw_frames(state.pending[:0])
        if not had_edge:
            state.pending = np.concatenate([_left_edge(state.pending), state.pending])
        raw = self._log_mel.raw_frames(state.pending)
        state.pending = state.pending[HOP_SAMPLES * raw.shape[1] :].copy()
        state.num_frames += raw.shape[1]
        state.peak = _louder(state.peak, raw)
        return raw

    def finish(self) -> Tensor:
        """The frames that the clip still gets if it ends here, raw [num_mel_bins, 0 or 1].

        Changes nothing: the stream can go on when the speech was not over after all.
        """
        state = self._state
        if num_frames(state.num_samples) == state.num_frames:
            return self._log_mel.raw_frames(state.pending[:0])
        if state.num_samples < EDGE_SAMPLES:
            padded = np.pad(state.pending, EDGE_SAMPLES, mode="reflect")
        else:
            padded = np.pad(state.pending, (0, EDGE_SAMPLES), mode="reflect")
        return self._log_mel.raw_frames(padded)[
            :, : num_frames(state.num_samples) - state.num_frames
        ]

    def finished_peak(self) -> float:
        """The whole clip's peak if it ends here."""
        return _louder(self._state.peak, self.finish())


def _left_edge(samples: Pcm) -> Pcm:
    """The mirror image before the first sample. Its outermost value meets a window weight of 0."""
    edge = np.zeros(EDGE_SAMPLES, np.float32)
    edge[1:] = samples[EDGE_SAMPLES - 1 : 0 : -1]
    return edge


def _louder(peak: float, raw: Tensor) -> float:
    return max(peak, float(raw.max())) if raw.shape[1] else peak


@cache
def mel_bank(num_mel_bins: int) -> npt.NDArray[np.float32]:
    """Triangles of equal area, evenly spaced on Slaney's mel scale: [num_mel_bins, 201]."""
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1)
    corners_hz = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE_HZ / 2), num_mel_bins + 2))
    low, centre, high = corners_hz[:-2, None], corners_hz[1:-1, None], corners_hz[2:, None]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * 2.0 / (high - low)).astype(np.float32)


# Slaney's scale: linear up to 1 kHz (15 mel), then 27 mel for each factor of 6.4.
_KNEE_HZ, _KNEE_MEL, _MEL_PER_LOG = 1000.0, 15.0, 27.0 / np.log(6.4)


def _hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz * _KNEE_MEL / _KNEE_HZ
    return float(_KNEE_MEL + _MEL_PER_LOG * np.log(hz / _KNEE_HZ))


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = mel * _KNEE_HZ / _KNEE_MEL
    return np.where(mel < _KNEE_MEL, linear, _KNEE_HZ * np.exp((mel - _KNEE_MEL) / _MEL_PER_LOG))
