"""Pictures from outside: JPEG or PNG bytes to RGB, with the size known before anything is decoded.

A few bytes can claim a picture of gigabytes, so the header is read first and by our own few lines.
Orientation tags are not followed. Decoding takes milliseconds: call `decode_image` in a thread.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct

import av
import numpy as np

from pipeline.errors import BadInputError
from pipeline.messages import Rgb

_DATA_URI = re.compile(r"data:image/(jpeg|jpg|png);base64,", re.IGNORECASE)
_BASE64_PIECE = 1 << 16  # characters; a multiple of four
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8\xff"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


def decode_base64(text: str, *, max_bytes: int, param: str) -> bytes:
    """Standard base64 with padding. In pieces of under a millisecond: what is large is decoded in a
    thread, and Python lets no other thread run before a piece is done.

    Raises:
        BadInputError: not base64, or more than `max_bytes`.
    """
    if len(text) // 4 * 3 > max_bytes + 2:
        raise BadInputError(f"More than {max_bytes} bytes.", param=param)
    if "=" in text[:-2]:  # the pieces below would take padding in the middle
        raise BadInputError("Not valid base64.", param=param)
    starts = range(0, len(text), _BASE64_PIECE)
    try:
        pieces = [base64.b64decode(text[at : at + _BASE64_PIECE], validate=True) for at in starts]
    except (binascii.Error, ValueError) as error:
        raise BadInputError("Not valid base64.", param=param) from error
    data = b"".join(pieces)
    if len(data) > max_bytes:
        raise BadInputError(f"More than {max_bytes} bytes.", param=param)
    return data


def data_uri_bytes(uri: str, *, max_bytes: int, param: str) -> bytes:
    """The bytes of a `data:` URI of a JPEG or PNG. Nothing is ever fetched from a network.

    Raises:
        BadInputError: another kind of URI, broken base64, or too long.
    """
    match = _DATA_URI.match(uri)
    if match is None:
        raise BadInputError("Pictures must be data:image/jpeg or data:image/png URIs.", param=param)
    return decode_base64(uri[match.end() :], max_bytes=max_bytes, param=param)


def decode_image(data: bytes, *, max_pixels: int, param: str) -> Rgb:
    """A JPEG or PNG as [height, width, 3] uint8.

    Raises:
        BadInputError: neither, damaged, empty, or more than `max_pixels`.
    """
    codec = "png" if data.startswith(_PNG_MAGIC) else "mjpeg"
    size = _png_size(data) if codec == "png" else _jpeg_size(data)
    if size is None or 0 in size:
        raise BadInputError("Not a JPEG or PNG picture.", param=param)
    width, height = size
    if width * height > max_pixels:
        raise BadInputError(f"{width}x{height} is over {max_pixels} pixels.", param=param)
    try:
        decoder = av.CodecContext.create(codec, "r")
        assert isinstance(decoder, av.VideoCodecContext), codec
        decoder.thread_count = 1
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except (av.FFmpegError, ValueError) as error:
        raise BadInputError("The picture is damaged.", param=param) from error
    frame = next((each for each in frames if isinstance(each, av.VideoFrame)), None)
    # a second header inside the file may disagree with the first one
    if frame is None or frame.width * frame.height > max_pixels:
        raise BadInputError("The picture is damaged.", param=param)
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the first frame header."""
    if not data.startswith(_JPEG_MAGIC):
        return None
    pos = 2
    while pos + 4 <= len(data):
        if data[pos] != 0xFF:
            return None
        marker = data[pos + 1]
        if marker == 0xFF:
            pos += 1
        elif marker in _WITHOUT_LENGTH:
            pos += 2
        elif marker in _START_OF_FRAME:
            if pos + 9 > len(data):
                return None
            height, width = struct.unpack(">HH", data[pos + 5 : pos + 9])
            return width, height
        else:
            pos += 2 + struct.unpack(">H", data[pos + 2 : pos + 4])[0]
    return None
