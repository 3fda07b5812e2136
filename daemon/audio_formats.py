"""Audio as bytes of the format that a client chose: PCM16 at several rates, or G.711.

In and out, whole or as a stream. G.711 (ITU-T) is looked up in tables that libavcodec fills once.
"""

from __future__ import annotations

import base64
from functools import cache

import av
import numpy as np

from daemon.protocol import AudioFormatView, ProtocolError
from pipeline.messages import ENGINE_INPUT_HZ, ENGINE_OUTPUT_HZ, Pcm, Pcm16
from pipeline.resample import Resampler, resample

_G711_CODECS = {"audio/pcmu": "pcm_mulaw", "audio/pcma": "pcm_alaw"}


def samples_of(data: bytes, audio_format: AudioFormatView) -> Pcm:
    """Bytes of a format (whole samples) as [num_samples] float32 at the format's rate."""
    if audio_format.type in _G711_CODECS:
        pcm = _decoded(audio_format.type)[np.frombuffer(data, np.uint8)]
    else:
        pcm = np.frombuffer(data, "<i2")
    return pcm.astype(np.float32) / 32768.0


def bytes_of(pcm: Pcm16, audio_format: AudioFormatView) -> bytes:
    """[num_samples] at the format's rate as bytes of it."""
    if audio_format.type in _G711_CODECS:
        return _encoded(audio_format.type)[pcm.astype(np.int32) + 32768].tobytes()
    return pcm.astype("<i2", copy=False).tobytes()


def whole_speech(data: bytes, audio_format: AudioFormatView, *, param: str) -> Pcm:
    """A whole recording as the engine hears it: [num_samples] at 16 kHz.

    Raises:
        ProtocolError: nothing, or half a sample at its end.
    """
    if not data or len(data) % audio_format.sample_bytes:
        raise ProtocolError("PCM16 audio has two bytes for each sample.", param=param)
    pcm = samples_of(data, audio_format)
    return resample(pcm, in_hz=audio_format.rate_hz, out_hz=ENGINE_INPUT_HZ)


def speech_base64(
    pcm: Pcm, audio_format: AudioFormatView, *, from_hz: int, max_chars: int
) -> str | None:
    """A whole recording as base64 of a format; None where that would be longer than wanted."""
    num_bytes = len(pcm) * audio_format.rate_hz // from_hz * audio_format.sample_bytes
    if not num_bytes or num_bytes * 4 // 3 >= max_chars:
        return None
    pcm = resample(pcm, in_hz=from_hz, out_hz=audio_format.rate_hz)
    return _base64(bytes_of(_pcm16(pcm), audio_format))


class SpeechEncoder:
    """The speech of one reply as base64 of a format, in pieces of `MAX_PIECE_MS`.

    Small pieces: some clients' sockets take no more than 1 MiB, and a player starts sooner. There
    is no lower bound: holding a frame back to fill a piece would be heard.
    """

    MAX_PIECE_MS = 200

    def __init__(self, audio_format: AudioFormatView) -> None:
        self._format = audio_format
        self._resampler = Resampler(in_hz=ENGINE_OUTPUT_HZ, out_hz=audio_format.rate_hz)

    def push(self, pcm: Pcm16) -> list[str]:
        """More speech at 24 kHz; what is ready of it."""
        if self._format.rate_hz == ENGINE_OUTPUT_HZ:
            return self._pieces(pcm)
        return self._pieces(_pcm16(self._resampler.push(pcm.astype(np.float32) / 32768.0)))

    def flush(self) -> list[str]:
        """The last millisecond; the stream is over afterwards."""
        return self._pieces(_pcm16(self._resampler.flush()))

    def _pieces(self, pcm: Pcm16) -> list[str]:
        num_samples = self._format.rate_hz * self.MAX_PIECE_MS // 1000
        return [
            _base64(bytes_of(pcm[start : start + num_samples], self._format))
            for start in range(0, len(pcm), num_samples)
        ]


def _pcm16(pcm: Pcm) -> Pcm16:
    scaled: Pcm16 = np.clip(np.rint(pcm * 32768.0), -32768, 32767).astype(np.int16)
    return scaled


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@cache
def _decoded(kind: str) -> Pcm16:
    """[256] sample of each code."""
    decoder = av.CodecContext.create(_G711_CODECS[kind], "r")
    assert isinstance(decoder, av.AudioCodecContext), kind
    decoder.sample_rate, decoder.layout = 8_000, "mono"
    (frame,) = decoder.decode(av.Packet(bytes(range(256))))
    return np.asarray(frame.to_ndarray().reshape(-1), np.int16)


@cache
def _encoded(kind: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """[65536] code of each sample, from -32768 on."""
    encoder = av.CodecContext.create(_G711_CODECS[kind], "w")
    assert isinstance(encoder, av.AudioCodecContext), kind
    encoder.sample_rate, encoder.layout, encoder.format = 8_000, "mono", "s16"
    every = np.arange(-32768, 32768).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(every[None], format="s16", layout="mono")
    frame.sample_rate = 8_000
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8)
