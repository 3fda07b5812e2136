"""Speech of ours as a file, while it is being made: PCM16 in, bytes of a container out.

FFmpeg encodes (through PyAV); what it is not needed for, raw samples and WAV, goes without it.
Speed is changed by FFmpeg's `atempo`, which keeps the pitch.
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


class Tempo:
    """Speech made faster or slower, chunk by chunk. `speed`: 0.25 to 4."""

    def __init__(self, speed: float) -> None:
        self._num_samples = 0
        self._graph: av.filter.Graph | None = None
        if speed == 1.0:
            return
        self._graph = graph = av.filter.Graph()
        source = graph.add_abuffer(
            format="s16",
            sample_rate=ENGINE_OUTPUT_HZ,
            layout="mono",
            time_base=Fraction(1, ENGINE_OUTPUT_HZ),
        )
        # one filter halves at most
        factors = [speed] if speed >= 0.5 else [0.5, speed / 0.5]
        filters = [graph.add("atempo", f"{factor:.6f}") for factor in factors]
        graph.link_nodes(source, *filters, graph.add("abuffersink")).configure()

    def push(self, pcm: Pcm16) -> Pcm16:
        """More samples, 24 kHz; those that are ready."""
        if self._graph is None or not len(pcm):
            return pcm
        self._graph.push(_frame(pcm, self._num_samples))
        self._num_samples += len(pcm)
        return self._pulled()

    def close(self) -> Pcm16:
        """The rest."""
        if self._graph is None or not self._num_samples:
            return np.zeros(0, np.int16)
        self._graph.push(None)
        return self._pulled()

    def _pulled(self) -> Pcm16:
        assert self._graph is not None
        chunks = [np.zeros(0, np.int16)]
        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, EOFError):  # FFmpeg's "more input first", and its end
                return np.concatenate(chunks)
            assert isinstance(frame, av.AudioFrame), frame
            chunks.append(np.asarray(frame.to_ndarray()[0], np.int16))
