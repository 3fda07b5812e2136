"""Speech of ours as a file, while it is being made: PCM16 in, bytes of a container out.

FFmpeg encodes (through PyAV); what it is not needed for, raw samples and WAV, goes without it.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm16

FileFormat = Literal["wav", "mp3", "flac", "opus", "aac", "pcm", "pcm16"]

MEDIA_TYPES: dict[FileFormat, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
    "pcm16": "audio/pcm",
}
_CONTAINERS = {
    "mp3": ("mp3", "libmp3lame"),
    "flac": ("flac", "flac"),
    "opus": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
}
_UNKNOWN_BYTES = 0xFFFFFFFF - 36  # what a WAV says of its length that is still being made


class _Sink:
    """Where a container writes to; what it wrote is taken away piece by piece."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class AudioFile:
    """One file. `num_samples`: how many there will be, None: not known yet."""

    def __init__(self, form: FileFormat, *, num_samples: int | None = None) -> None:
        self._sink = _Sink()
        self._num_samples = 0
        self._container: av.container.OutputContainer | None = None
        self._stream: av.AudioStream | None = None
        if form == "wav":
            self._sink.write(_wav_header(num_samples))
        elif form in _CONTAINERS:
            container, codec = _CONTAINERS[form]
            self._container = av.open(self._sink, "w", format=container)
            stream = self._container.add_stream(codec, rate=ENGINE_OUTPUT_HZ)
            assert isinstance(stream, av.AudioStream), codec
            stream.layout = "mono"
            self._stream = stream

    def push(self, pcm: Pcm16) -> bytes:
        """More samples, 24 kHz; the bytes that are ready."""
        if self._container is None or self._stream is None:
            self._sink.write(pcm.astype("<i2", copy=False).tobytes())
        elif len(pcm):
            self._container.mux(self._stream.encode(_frame(pcm, self._num_samples)))
        self._num_samples += len(pcm)
        return self._sink.take()

    def close(self) -> bytes:
        """The rest of the file."""
        if self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        return self._sink.take()


def whole_file(form: FileFormat, pcm: Pcm16) -> bytes:
    """All samples as one file."""
    made = AudioFile(form, num_samples=len(pcm))
    return made.push(pcm) + made.close()


def _wav_header(num_samples: int | None) -> bytes:
    num_bytes = _UNKNOWN_BYTES if num_samples is None else 2 * num_samples
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, 1, ENGINE_OUTPUT_HZ, 2 * ENGINE_OUTPUT_HZ, 2, 16
    )
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + num_bytes, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", num_bytes)
    )


def _frame(pcm: Pcm16, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(pcm, np.int16)[None, :], format="s16", layout="mono"
    )
    frame.sample_rate = ENGINE_OUTPUT_HZ
    frame.pts, frame.time_base = pts, Fraction(1, ENGINE_OUTPUT_HZ)
    return frame
