"""WAV files (16 bit, any rate, mono or stereo) as speech, at the rate of a transport."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from av import AudioFrame, AudioResampler

from clients.bench.errors import BenchError
from clients.bench.measure import Pcm16, end_of_speech


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What is spoken in one turn. `end` is the index just after its last loud sample."""

    name: str
    pcm: Pcm16
    end: int


def default_wav() -> Path:
    """The recording that is spoken where none is named: one question in synthetic speech."""
    return Path(str(resources.files("clients.bench") / "question.wav"))


def read_speech(path: Path, rate_hz: int) -> Speech:
    """One WAV file at `rate_hz`, mono.

    Raises:
        BenchError: not a 16-bit WAV file, or nothing but silence.
    """
    pcm = read_sound(path, rate_hz)
    end = end_of_speech(pcm)
    if end is None:
        raise BenchError(f"{path}: holds no speech, only silence")
    return Speech(name=path.name, pcm=pcm, end=end)


def read_sound(path: Path, rate_hz: int) -> Pcm16:
    """One WAV file at `rate_hz`, mono; it may be silent.

    Raises:
        BenchError: not a 16-bit WAV file.
    """
    try:
        with wave.open(str(path)) as source:
            if source.getsampwidth() != 2:
                raise BenchError(
                    f"{path}: {8 * source.getsampwidth()} bits a sample; 16 are needed"
                )
            num_channels, file_rate_hz = source.getnchannels(), source.getframerate()
            raw = np.frombuffer(source.readframes(source.getnframes()), "<i2")
    except (OSError, EOFError, wave.Error) as error:
        raise BenchError(f"{path}: not a WAV file that can be read ({error})") from error
    mono = raw.reshape(-1, num_channels).astype(np.int32).mean(axis=1).astype(np.int16)
    return resampled(mono, file_rate_hz, rate_hz)


def resampled(pcm: Pcm16, from_hz: int, to_hz: int) -> Pcm16:
    """The whole clip at another rate."""
    if from_hz == to_hz or not len(pcm):
        return pcm
    resampler = AudioResampler(format="s16", layout="mono", rate=to_hz)
    frame = AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = from_hz
    out = [*resampler.resample(frame), *resampler.resample(None)]
    made = [part.to_ndarray().reshape(-1) for part in out]  # of a sample or two nothing may be left
    return np.concatenate([np.zeros(0, np.int16), *made]).astype(np.int16)
