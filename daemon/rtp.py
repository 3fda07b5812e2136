"""What aiortc's codecs lack for a server: no bombs, and help against lost audio.

- A VP8 key frame of 41 bytes may claim 16383 x 16383 pixels and cost a gigabyte. Ours looks first.
- Senders put a copy of a packet's speech into the next one (in-band FEC) only for who asks for it,
  and send lost packets again only for who says that it will name them (NACK).
- It sends speech as 96 kb/s stereo music, which has no such copies. Ours is mono and has them.

All change module-wide names of aiortc, once for the process. How sound is received:
`daemon.audio_source`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol, cast

import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
from aiortc.codecs import CODECS
from aiortc.codecs import get_decoder as stock_decoder
from aiortc.codecs import get_encoder as stock_encoder
from aiortc.codecs.opus import SAMPLE_RATE, SAMPLES_PER_FRAME, OpusEncoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from av import AudioResampler, CodecContext

SPEECH_BITS_PER_S = 40_000  # enough for all that 24 kHz speech has; from 64 kb/s on there is no FEC
ASSUMED_LOSS_PERCENT = 10  # libopus spends bits on copies only where it is told of losses

_VP8_START_CODE = b"\x9d\x01\x2a"


class _Decoder(Protocol):
    def decode(self, encoded_frame: JitterFrame) -> list[Any]: ...


class GuardedVp8Decoder:
    """Drops frames that are larger than wanted before they are decoded, and all until the next key
    frame.
    """

    def __init__(self, stock: _Decoder, *, max_side: int, on_drop: Callable[[], None]) -> None:
        self._stock = stock
        self._max_side = max_side
        self._on_drop = on_drop
        self._is_dropping = True

    def decode(self, encoded_frame: JitterFrame) -> list[Any]:
        """See aiortc's `Decoder`."""
        size = vp8_key_frame_size(encoded_frame.data)
        if size is not None:
            self._is_dropping = max(size) > self._max_side or 0 in size
        if self._is_dropping:
            self._on_drop()
            return []
        return self._stock.decode(encoded_frame)


def vp8_key_frame_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a VP8 key frame claims (RFC 6386, 9.1); None for other frames."""
    if len(data) < 10 or data[0] & 1 or data[3:6] != _VP8_START_CODE:
        return None
    width = int.from_bytes(data[6:8], "little") & 0x3FFF
    height = int.from_bytes(data[8:10], "little") & 0x3FFF
    return width, height


def install_decoders(*, max_side: int, on_drop: Callable[[], None]) -> None:
    """Make all receivers of this process use the decoders above. The last call counts."""

    def get_decoder(codec: RTCRtpCodecParameters) -> Any:
        stock: Any = stock_decoder(codec)
        if codec.mimeType.lower() == "video/vp8":
            return GuardedVp8Decoder(stock, max_side=max_side, on_drop=on_drop)
        return stock

    if not hasattr(aiortc.rtcrtpreceiver, "get_decoder"):
        raise RuntimeError("this aiortc has no place for a guarded video decoder")
    aiortc.rtcrtpreceiver.get_decoder = get_decoder


def ask_for_repair() -> None:
    """Negotiate Opus in-band FEC always, and NACK for audio where the peer offers it."""
    for codec in CODECS["audio"]:
        if codec.mimeType.lower() == "audio/opus":
            codec.parameters = {"minptime": 10, "useinbandfec": 1}
            codec.rtcpFeedback = [RTCRtcpFeedback(type="nack")]


class SpeechEncoder(OpusEncoder):
    """Opus for one voice, with a copy of each packet's speech in the next one."""

    def __init__(self) -> None:
        codec = CodecContext.create("libopus", "w")
        codec.bit_rate, codec.sample_rate = SPEECH_BITS_PER_S, SAMPLE_RATE
        codec.format, codec.layout = "s16", "mono"
        codec.time_base = Fraction(1, SAMPLE_RATE)
        loss = str(ASSUMED_LOSS_PERCENT)
        codec.options = {"application": "voip", "fec": "1", "packet_loss": loss}
        self.codec = codec
        self.resampler = AudioResampler(
            format="s16", layout="mono", rate=SAMPLE_RATE, frame_size=SAMPLES_PER_FRAME
        )
        self.first_packet_pts = None


def send_speech() -> None:
    """Make all senders of this process use the encoder above for Opus."""

    def get_encoder(codec: RTCRtpCodecParameters) -> Any:
        return SpeechEncoder() if codec.mimeType.lower() == "audio/opus" else stock_encoder(codec)

    if not hasattr(aiortc.rtcrtpsender, "get_encoder"):
        raise RuntimeError("this aiortc has no place for an encoder of speech")
    cast(Any, aiortc.rtcrtpsender).get_encoder = get_encoder
