"""Messages of the engine port as bytes, and back: a JSON header, then the arrays as raw buffers.

    u32 header_bytes | u64 payload_bytes | header (JSON) | payload (arrays, each padded to 8 bytes)

Driven by the field types of the dataclasses of `pipeline.messages` in both directions: a name that
is not in that list, a missing or an extra field, a value of another type, a wrong size are a
`FramingError`; nothing is imported, evaluated or unpickled. Both ends run the same version of the
code: there is no compatibility between versions.
Does not open sockets or start threads: that is `pipeline.channels` and `pipeline.child`.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import types
import typing
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, Union

import numpy as np

from pipeline import messages
from pipeline.errors import PipelineError
from pipeline.messages import Answer, Call

WireMessage = Call | Answer
Buffer = bytes | memoryview

PREFIX: Final = struct.Struct("!IQ")
ALIGNMENT_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 32 << 20  # the texts of a whole conversation
MAX_PAYLOAD_BYTES: Final = 1 << 30  # its audio and pictures, in one `Rebuild`
MAX_DIMENSIONS: Final = 4
_JOINED_BYTES: Final = 64 << 10  # smaller messages leave in one system call
_TYPES: Final[dict[str, type]] = {
    kind.__name__: kind for kind in typing.get_args(Call) + typing.get_args(Answer)
}


class FramingError(PipelineError):
    """Bytes or values that are no message of the engine port."""


# ------------------------------------------------------------------------------- encoding
def encode(message: WireMessage) -> list[Buffer]:
    """The buffers of one message, to be sent one after another.

    Contiguous arrays are not copied: they must not be changed until they have been sent.

    Raises:
        FramingError: a value is not of its field's type, or the message is too large.
    """
    name = type(message).__name__
    if _TYPES.get(name) is not type(message):
        raise FramingError(f"{name} is no message of the engine port")
    payload: list[Buffer] = []
    header = json.dumps([name, _plain(message, type(message), payload, name)]).encode()
    payload_bytes = sum(len(buffer) for buffer in payload)
    _check_sizes(len(header), payload_bytes)
    return [PREFIX.pack(len(header), payload_bytes), header, *payload]


def payload_bytes(value: object) -> int:
    """Bytes that a message keeps in memory, near enough for a bound: its arrays and its texts."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, str):
        return len(value)
    if isinstance(value, tuple):
        return sum(payload_bytes(part) for part in value)
    if is_dataclass(value):
        return sum(payload_bytes(getattr(value, field.name)) for field in fields(value))
    return 8


def _plain(value: Any, hint: Any, payload: list[Buffer], where: str) -> Any:
    """`value` as JSON-ready data; its arrays go to `payload` in the order in which they are met."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _plain_of_union(value, hint, payload, where)
    if _is_message(hint):
        kinds = _fields_of(hint)
        if type(value) is not hint:
            raise _mismatch(value, hint, where)
        return {
            name: _plain(getattr(value, name), kind, payload, f"{where}.{name}")
            for name, kind in kinds.items()
        }
    if origin is tuple:
        if not isinstance(value, tuple):
            raise _mismatch(value, hint, where)
        kind = typing.get_args(hint)[0]
        return [_plain(part, kind, payload, f"{where}[]") for part in value]
    if origin is np.ndarray:
        return _plain_of_array(value, hint, payload, where)
    return _scalar(value, hint, where)


def _plain_of_union(value: Any, hint: Any, payload: list[Buffer], where: str) -> Any:
    """None stays null; of several dataclasses, the name goes along."""
    kinds = typing.get_args(hint)
    if value is None and type(None) in kinds:
        return None
    named = [kind for kind in kinds if _is_message(kind)]
    if not named:
        (kind,) = (kind for kind in kinds if kind is not type(None))
        return _plain(value, kind, payload, where)
    if type(value) not in named:
        raise _mismatch(value, hint, where)
    return [type(value).__name__, _plain(value, type(value), payload, where)]


def _plain_of_array(value: Any, hint: Any, payload: list[Buffer], where: str) -> list[int]:
    dtype = _dtype_of(hint)
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise _mismatch(getattr(value, "dtype", value), dtype, where)
    if not 1 <= value.ndim <= MAX_DIMENSIONS:
        raise FramingError(f"{where}: an array of {value.ndim} dimensions can not be sent")
    if value.nbytes:
        payload.append(np.ascontiguousarray(value).data.cast("B"))
        if padding := -value.nbytes % ALIGNMENT_BYTES:
            payload.append(bytes(padding))
    return list(value.shape)


# ------------------------------------------------------------------------------- decoding
def decode(header: bytes | bytearray, payload: bytearray) -> WireMessage:
    """The message of one header and payload; its arrays are writable views into `payload`.

    Raises:
        FramingError: they are no message of the engine port.
    """
    try:
        parsed = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise FramingError(f"the header is not JSON: {error}") from None
    if not (isinstance(parsed, list) and len(parsed) == 2 and isinstance(parsed[0], str)):
        raise FramingError("the header does not name a message")
    kind = _TYPES.get(parsed[0])
    if kind is None:
        raise FramingError(f"{parsed[0][:40]!r} is no message of the engine port")
    reader = _PayloadReader(payload)
    message: WireMessage = _value(parsed[1], kind, reader, kind.__name__)
    if reader.num_left_bytes:
        raise FramingError(f"{kind.__name__}: {reader.num_left_bytes} bytes are left over")
    return message


@dataclass(slots=True)
class _PayloadReader:
    payload: bytearray
    position: int = 0

    @property
    def num_left_bytes(self) -> int:
        return len(self.payload) - self.position

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> Any:
        num_items = math.prod(shape)
        num_bytes = num_items * dtype.itemsize
        if num_bytes > self.num_left_bytes:
            raise FramingError(f"{where}: {num_bytes} bytes are announced, fewer came")
        array = np.frombuffer(self.payload, dtype, count=num_items, offset=self.position)
        self.position += num_bytes + -num_bytes % ALIGNMENT_BYTES
        return array.reshape(shape)


def _value(plain: Any, hint: Any, reader: _PayloadReader, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _value_of_union(plain, hint, reader, where)
    if _is_message(hint):
        kinds = _fields_of(hint)
        if not isinstance(plain, dict) or plain.keys() != kinds.keys():
            raise FramingError(f"{where}: expected the fields {', '.join(kinds)}")
        values = {n: _value(plain[n], kind, reader, f"{where}.{n}") for n, kind in kinds.items()}
        return hint(**values)
    if origin is tuple:
        if not isinstance(plain, list):
            raise _mismatch(plain, hint, where)
        kind = typing.get_args(hint)[0]
        return tuple(_value(part, kind, reader, f"{where}[]") for part in plain)
    if origin is np.ndarray:
        return reader.take(_shape(plain, where), _dtype_of(hint), where)
    return _scalar(plain, hint, where)


def _value_of_union(plain: Any, hint: Any, reader: _PayloadReader, where: str) -> Any:
    kinds = typing.get_args(hint)
    if plain is None and type(None) in kinds:
        return None
    named: dict[str, Any] = {kind.__name__: kind for kind in kinds if _is_message(kind)}
    if not named:
        (kind,) = (kind for kind in kinds if kind is not type(None))
        return _value(plain, kind, reader, where)
    if not (isinstance(plain, list) and len(plain) == 2 and isinstance(plain[0], str)):
        raise _mismatch(plain, hint, where)
    if plain[0] not in named:
        raise FramingError(f"{where}: {plain[0][:40]!r} is not one of {', '.join(named)}")
    return _value(plain[1], named[plain[0]], reader, where)


def _shape(plain: Any, where: str) -> tuple[int, ...]:
    is_shape = (
        isinstance(plain, list)
        and 1 <= len(plain) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size <= MAX_PAYLOAD_BYTES for size in plain)
    )
    if not is_shape:
        raise FramingError(f"{where}: {str(plain)[:40]} is no shape of an array")
    return tuple(plain)


# ------------------------------------------------------------------------------- both ways
def _scalar(value: Any, hint: Any, where: str) -> Any:
    """Check one text, number or flag; an integer is a good float, nothing else is converted."""
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise _mismatch(value, hint, where)
        return value
    if hint is float and type(value) is int:
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _mismatch(value, hint, where)
    if hint is float and not math.isfinite(value):
        raise FramingError(f"{where}: {value} is not a finite number")
    return value


def _mismatch(value: object, hint: object, where: str) -> FramingError:
    found = str(value)[:40] if isinstance(value, str | int | np.dtype) else type(value).__name__
    return FramingError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {found}")


def _is_message(hint: Any) -> bool:
    return is_dataclass(hint)


@cache
def _fields_of(kind: Hashable) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, vars(messages))
    return {field.name: hints[field.name] for field in fields(typing.cast(Any, kind))}


@cache
def _dtype_of(hint: Any) -> np.dtype[Any]:
    """`NDArray[np.float32]` -> float32."""
    dtype: np.dtype[Any] = np.dtype(typing.get_args(typing.get_args(hint)[1])[0])
    return dtype


def _check_sizes(header_bytes: int, num_payload_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES:
        raise FramingError(f"a header of {header_bytes} bytes is over {MAX_HEADER_BYTES}")
    if num_payload_bytes > MAX_PAYLOAD_BYTES:
        raise FramingError(f"a payload of {num_payload_bytes} bytes is over {MAX_PAYLOAD_BYTES}")


# ------------------------------------------------------------------------------- sockets
def write_buffers(sock: socket.socket, buffers: list[Buffer]) -> None:
    """Send the buffers of one message. Raises OSError when the other end is gone."""
    if sum(len(buffer) for buffer in buffers) <= _JOINED_BYTES:
        sock.sendall(b"".join(buffers))
        return
    for buffer in buffers:
        sock.sendall(buffer)


def read_messages(sock: socket.socket) -> Iterator[WireMessage]:
    """Messages until the other end closes between two of them.

    Raises:
        FramingError: bytes that are no message, or an end in the middle of one.
        OSError: the connection broke.
    """
    while prefix := _read(sock, PREFIX.size, may_end=True):
        header_bytes, num_payload_bytes = PREFIX.unpack(prefix)
        _check_sizes(header_bytes, num_payload_bytes)
        header = _read(sock, header_bytes)
        yield decode(header, _read(sock, num_payload_bytes))


def _read(sock: socket.socket, num_bytes: int, *, may_end: bool = False) -> bytearray:
    buffer = bytearray(num_bytes)
    position = 0
    while position < num_bytes:
        with memoryview(buffer) as view:
            received = sock.recv_into(view[position:])
        if not received:
            if may_end and not position:
                return bytearray()
            raise FramingError("the connection ended in the middle of a message")
        position += received
    return buffer
