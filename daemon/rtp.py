"""What aiortc's receivers lack for a server that listens to speech: no waiting, no bombs.

- Its audio buffer holds four packets back always (80 ms), and after one lost packet fifteen for
  ever. Ours passes packets on as they come in order, waits for a missing one only while a few later
  ones arrive, then goes on. It needs no smooth clock: a voice detector listens, not an ear.
- A VP8 key frame of 41 bytes may claim 16383 x 16383 pixels and cost a gigabyte. Ours looks first.

Both are put in place through private names; where those do not exist, aiortc stays as it is and the
log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import aiortc.rtcrtpreceiver
from aiortc import RTCRtpReceiver
from aiortc.codecs import get_decoder as stock_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

log = logging.getLogger(__name__)

_BUFFER_NAME = "_RTCRtpReceiver__jitter_buffer"
_HALF = 1 << 15
_MAX_JUMP = 1_000
_VP8_START_CODE = b"\x9d\x01\x2a"


class Burst(JitterFrame):
    """Several audio packets that became playable at once. `timestamp` is the first one's."""

    def __init__(self, packets: list[RtpPacket]) -> None:
        super().__init__(data=packets[0]._data, timestamp=packets[0].timestamp)  # type: ignore[attr-defined]
        first = packets[0].timestamp
        self.parts = [
            (packet._data, (packet.timestamp - first) & 0xFFFFFFFF)  # type: ignore[attr-defined]
            for packet in packets
        ]


class AudioOrder:
    """Puts RTP packets in order; has the shape of aiortc's `JitterBuffer`.

    Args:
        max_reordered: later packets that may wait for a missing one.
    """

    def __init__(self, max_reordered: int) -> None:
        self._max_reordered = max_reordered
        self._next: int | None = None
        self._held: dict[int, RtpPacket] = {}

    def add(self, packet: RtpPacket) -> tuple[bool, Burst | None]:
        """Take a packet; (False, what can be played now). Late and doubled packets are dropped."""
        number = packet.sequence_number
        if self._next is None or self._is_far(number):
            self._next = number
            self._held.clear()
        if self._ahead(number) >= _HALF:
            return False, None
        self._held[number] = packet
        if self._next not in self._held and len(self._held) > self._max_reordered:
            self._next = min(self._held, key=self._ahead)
        ready = []
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next = (self._next + 1) & 0xFFFF
        ready = [each for each in ready if each._data]  # type: ignore[attr-defined]
        return False, Burst(ready) if ready else None

    def _ahead(self, number: int) -> int:
        assert self._next is not None
        return (number - self._next) & 0xFFFF

    def _is_far(self, number: int) -> bool:
        """A jump that no loss explains: the sender began anew."""
        return _MAX_JUMP < self._ahead(number) < (1 << 16) - _MAX_JUMP


class _Decoder(Protocol):
    def decode(self, encoded_frame: JitterFrame) -> list[Any]: ...


class BurstDecoder:
    """Decodes each packet of a burst."""

    def __init__(self, stock: _Decoder) -> None:
        self._stock = stock

    def decode(self, encoded_frame: JitterFrame) -> list[Any]:
        """See aiortc's `Decoder`."""
        if not isinstance(encoded_frame, Burst):
            return self._stock.decode(encoded_frame)
        frames = []
        for data, offset in encoded_frame.parts:
            part = JitterFrame(data=data, timestamp=encoded_frame.timestamp + offset)
            frames += self._stock.decode(part)
        return frames


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
        return BurstDecoder(stock) if codec.mimeType.lower().startswith("audio/") else stock

    if not hasattr(aiortc.rtcrtpreceiver, "get_decoder"):
        raise RuntimeError("this aiortc has no place for a guarded video decoder")
    aiortc.rtcrtpreceiver.get_decoder = get_decoder


def hasten_audio(receiver: RTCRtpReceiver, *, max_reordered: int) -> None:
    """Replace an audio receiver's jitter buffer, before it receives."""
    if not hasattr(receiver, _BUFFER_NAME):
        log.warning("aiortc's jitter buffer was not found; audio input is 80 ms later")
        return
    setattr(receiver, _BUFFER_NAME, AudioOrder(max_reordered))
