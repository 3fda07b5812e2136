"""Opus packets to PCM, with what libopus does for packets that were lost.

libavcodec's Opus decoders conceal nothing and read no in-band FEC, so libopus itself is called: the
copy that PyAV has brought into the process, else the system's. It decodes to 16 kHz mono at once,
which is what the session wants. Where no libopus is found, `FadingDecoder` conceals for any codec
that aiortc can decode: the last packet again, fading.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from pipeline.messages import Pcm

log = logging.getLogger(__name__)

OPUS_CLOCK_HZ = 48_000
OPUS_OUT_HZ = 16_000
MAX_CONCEALED_S = 0.1  # of sound; what is longer goes on as silence
_MAX_PACKET_SAMPLES = OPUS_OUT_HZ * 120 // 1000  # RFC 6716: a packet holds at most 120 ms
_FADE = 0.5  # a repeated packet is this much quieter than the one before


class PacketDecoder(Protocol):
    """One stream. All PCM is mono float32 at `rate_hz`; counts of samples are in `clock_hz`."""

    clock_hz: int
    rate_hz: int

    def num_samples(self, payload: bytes) -> int:
        """How much sound a packet holds."""

    def decode(self, payload: bytes) -> Pcm:
        """The sound of a packet; empty for one that can not be decoded."""

    def conceal(self, num_samples: int, following: bytes | None) -> Pcm:
        """Sound in place of a lost packet; `following` is the one behind it, if it came."""


class OpusDecoder:
    """libopus, with packet loss concealment and in-band FEC."""

    clock_hz = OPUS_CLOCK_HZ
    rate_hz = OPUS_OUT_HZ

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(
            library.opus_decoder_create(OPUS_OUT_HZ, 1, ctypes.byref(error))
        )
        if not self._state:
            raise MemoryError(f"libopus made no decoder: error {error.value}")
        self._out = np.zeros(_MAX_PACKET_SAMPLES, np.float32)
        self._concealed_s = 0.0

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state:
            self._library.opus_decoder_destroy(state)

    def num_samples(self, payload: bytes) -> int:
        """See `PacketDecoder`."""
        return opus_samples(payload)

    def decode(self, payload: bytes) -> Pcm:
        """See `PacketDecoder`."""
        self._concealed_s = 0.0
        return self._call(payload, _MAX_PACKET_SAMPLES, is_copy=False)

    def conceal(self, num_samples: int, following: bytes | None) -> Pcm:
        """See `PacketDecoder`."""
        count = num_samples * OPUS_OUT_HZ // OPUS_CLOCK_HZ
        grain = OPUS_OUT_HZ // 400  # libopus conceals in steps of 2.5 ms
        wanted = min(count // grain * grain, _MAX_PACKET_SAMPLES)
        self._concealed_s += num_samples / OPUS_CLOCK_HZ
        pcm = np.zeros(0, np.float32)
        if following is not None or self._concealed_s <= MAX_CONCEALED_S:
            pcm = self._call(following, wanted, is_copy=following is not None)
        return np.pad(pcm, (0, count - len(pcm)))

    def _call(self, payload: bytes | None, num_samples: int, *, is_copy: bool) -> Pcm:
        size = len(payload) if payload is not None else 0
        out = self._out.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        count = self._library.opus_decode_float(
            self._state, payload, size, out, num_samples, int(is_copy)
        )
        return self._out[: max(0, count)].copy()


class FadingDecoder:
    """Any codec of aiortc's, through PyAV; what is lost is the last packet again, fading."""

    def __init__(self, codec: RTCRtpCodecParameters) -> None:
        self.clock_hz = self.rate_hz = codec.clockRate
        self._is_opus = _is_opus(codec)
        self._stock: Any = get_decoder(codec)
        self._last: Pcm = np.zeros(0, np.float32)

    def num_samples(self, payload: bytes) -> int:
        """See `PacketDecoder`."""
        # G.711 and G.722 have a byte for each tick of their clock
        return opus_samples(payload) if self._is_opus else len(payload)

    def decode(self, payload: bytes) -> Pcm:
        """See `PacketDecoder`."""
        try:
            frames = self._stock.decode(JitterFrame(data=payload, timestamp=0))
        except av.FFmpegError as error:
            log.info("audio packet dropped: %s", error)
            return np.zeros(0, np.float32)
        parts = [mono(frame) for frame in frames]
        self.rate_hz = frames[0].sample_rate if frames else self.rate_hz
        self._last = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return self._last

    def conceal(self, num_samples: int, following: bytes | None) -> Pcm:
        """See `PacketDecoder`."""
        count = num_samples * self.rate_hz // self.clock_hz
        fade = np.geomspace(1, _FADE, max(1, len(self._last))).astype(np.float32)
        self._last = self._last * fade * _FADE
        return np.pad(self._last[:count], (0, max(0, count - len(self._last))))


def decoder_for(codec: RTCRtpCodecParameters) -> PacketDecoder:
    """The best decoder that there is for a codec."""
    library = libopus() if _is_opus(codec) else None
    return FadingDecoder(codec) if library is None else OpusDecoder(library)


def opus_samples(payload: bytes) -> int:
    """How much sound an Opus packet holds, in 48 kHz samples, by its head (RFC 6716, 3.1)."""
    if not payload:
        return 0
    config, code = payload[0] >> 3, payload[0] & 3
    if config < 12:
        frame_samples = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame_samples = (480, 960)[config & 1]
    else:
        frame_samples = (120, 240, 480, 960)[config & 3]
    if code < 3:
        return frame_samples * (1 if code == 0 else 2)
    num_frames = payload[1] & 0x3F if len(payload) > 1 else 0
    return min(frame_samples * num_frames, _MAX_PACKET_SAMPLES * OPUS_CLOCK_HZ // OPUS_OUT_HZ)


def _is_opus(codec: RTCRtpCodecParameters) -> bool:
    return codec.mimeType.lower() == "audio/opus"


@cache
def libopus() -> ctypes.CDLL | None:
    """libopus with its signatures set; None where there is none."""
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
            _declare(library)
        except (OSError, AttributeError):
            continue
        return library
    log.warning("no libopus found: lost audio is filled with the last packet, fading")
    return None


def _candidates() -> Sequence[str]:
    """PyAV's wheels keep their libraries in `av.libs`, beside the package."""
    folder = Path(av.__file__).parent.parent / "av.libs"
    system = ctypes.util.find_library("opus")
    return [*map(str, sorted(folder.glob("libopus*"))), *([system] if system else [])]


def _declare(library: ctypes.CDLL) -> None:
    create, decode = library.opus_decoder_create, library.opus_decode_float
    create.restype = ctypes.c_void_p
    create.argtypes = [ctypes.c_int32, ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
    library.opus_decoder_destroy.argtypes = [ctypes.c_void_p]
    library.opus_decoder_destroy.restype = None
    decode.restype = ctypes.c_int
    decode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_float),
        ctypes.c_int,
        ctypes.c_int,
    ]


def mono(frame: av.AudioFrame) -> Pcm:
    """[num_samples] float32 of a packed 16-bit frame."""
    pcm = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    return np.asarray(pcm.mean(axis=1, dtype=np.float32) / 32768.0, np.float32)
