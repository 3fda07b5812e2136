"""What aiortc's codecs lack for a server: no bombs, and help against lost audio.

- A VP8 key frame of 41 bytes may claim 16383 x 16383 pixels and cost a gigabyte. Ours looks first.
- Senders put a copy of a packet's speech into the next one (in-band FEC) only for who asks for it,
  and send lost packets again only for who says that it will name them (NACK).

Both change module-wide tables of aiortc, once for the process. How sound is received:
`daemon.audio_source`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import aiortc.rtcrtpreceiver
from aiortc.codecs import CODECS
from aiortc.codecs import get_decoder as stock_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters

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
