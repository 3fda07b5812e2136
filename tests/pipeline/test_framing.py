"""Every message of the engine port survives the way through bytes; everything else is refused."""

from __future__ import annotations

import json
import socket
import struct
import threading
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from pipeline import framing, messages
from pipeline.framing import FramingError, decode, encode, payload_bytes, read_messages

KINDS = typing.get_args(messages.Call) + typing.get_args(messages.Answer)


def strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, made from the type itself: a new message is covered at once."""
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint, vars(messages))
        kinds = {field.name: strategy_of(hints[field.name]) for field in fields(hint)}
        return st.builds(hint, **kinds)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(strategy_of(kind) for kind in typing.get_args(hint)))
    if origin is Literal:
        return st.sampled_from(typing.get_args(hint))
    if origin is tuple:
        return st.lists(strategy_of(typing.get_args(hint)[0]), max_size=3).map(tuple)
    if origin is np.ndarray:
        (scalar,) = typing.get_args(typing.get_args(hint)[1])
        shapes = st_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
        return st_numpy.arrays(scalar, shapes)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**62), 2**62),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=20),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return plain[hint]


def is_equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        same_form = one.dtype == other.dtype and one.shape == other.shape
        return same_form and one.tobytes() == other.tobytes()
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        return all(is_equal(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def split(buffers: list[framing.Buffer]) -> tuple[bytes, bytearray]:
    data = b"".join(buffers)
    header_bytes, num_payload_bytes = framing.PREFIX.unpack_from(data)
    header = data[framing.PREFIX.size :][:header_bytes]
    payload = bytearray(data[framing.PREFIX.size + header_bytes :])
    assert len(payload) == num_payload_bytes
    return header, payload


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives(kind: type) -> None:
    @settings(max_examples=15, deadline=None)
    @given(strategy_of(kind))
    def survives(message: Any) -> None:
        found = decode(*split(encode(message)))
        assert is_equal(message, found), (message, found)

    survives()


def test_arrays_are_writable_aligned_and_not_copied_on_the_way_out() -> None:
    pcm = np.arange(7, dtype=np.float32)
    buffers = encode(messages.AppendAudio(context=1, pcm=pcm))
    pcm[0] = 5
    found = decode(*split(buffers))
    assert isinstance(found, messages.AppendAudio)
    assert found.pcm[0] == 5
    assert found.pcm.flags.writeable
    assert found.pcm.flags.aligned


def test_strided_arrays_are_sent_as_they_look() -> None:
    rgb = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[::-1, ::2]
    frame = messages.Frame(rgb=rgb, time_s=0)
    found = decode(*split(encode(messages.AppendFrame(context=1, frame=frame))))
    assert isinstance(found, messages.AppendFrame)
    assert np.array_equal(found.frame.rgb, rgb)
    assert found.frame.time_s == 0.0


@pytest.mark.parametrize(
    "message",
    [
        object(),
        messages.TextPart(text="a part, not a message"),
        messages.Close(context="1"),  # type: ignore[arg-type]
        messages.Close(context=True),
        messages.Close(context=None),  # type: ignore[arg-type]
        messages.Open(context=1, instructions="", voice=b"x"),  # type: ignore[arg-type]
        messages.AppendAudio(context=1, pcm=np.zeros(3)),
        messages.AppendAudio(context=1, pcm=[0.0]),  # type: ignore[arg-type]
        messages.AppendAudio(context=1, pcm=np.array(0, np.float32)),
        messages.Rebuild(context=1, messages=[]),  # type: ignore[arg-type]
        messages.Respond(
            context=1, response=2, options=messages.ResponseOptions(temperature=float("nan"))
        ),
        messages.AppendMessage(
            context=1,
            message=messages.Message(role="tool", parts=()),  # type: ignore[arg-type]
        ),
        messages.AppendMessage(
            context=1,
            message=messages.Message(role="user", parts=("text",)),  # type: ignore[arg-type]
        ),
    ],
)
def test_wrong_values_are_not_sent(message: Any) -> None:
    with pytest.raises(FramingError):
        encode(message)


AUDIO = {"context": 1, "pcm": [2]}


@pytest.mark.parametrize(
    ("header", "num_payload_bytes"),
    [
        (b"\xff\xfe", 0),
        (b"[" * 100_000, 0),
        (b"3", 0),
        (["Close"], 0),
        (["os.system", {"command": "true"}], 0),
        (["Message", {"role": "user", "parts": []}], 0),
        (["Close", {}], 0),
        (["Close", {"context": 1, "more": 2}], 0),
        (["Close", {"context": 1.5}], 0),
        (["Close", {"context": 1}], 8),
        (["AppendAudio", AUDIO], 0),
        (["AppendAudio", AUDIO], 16),
        (["AppendAudio", {"context": 1, "pcm": [-2]}], 8),
        (["AppendAudio", {"context": 1, "pcm": [2**70, 2**70]}], 8),
        (["AppendAudio", {"context": 1, "pcm": [1] * 9}], 8),
        (["AppendAudio", {"context": 1, "pcm": "x"}], 8),
        (["AppendMessage", {"context": 1, "message": {"role": "user", "parts": [["X", {}]]}}], 0),
        (["AppendMessage", {"context": 1, "message": {"role": "user", "parts": [7]}}], 0),
    ],
)
def test_garbage_is_refused(header: Any, num_payload_bytes: int) -> None:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    with pytest.raises(FramingError):
        decode(data, bytearray(num_payload_bytes))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_refused_or_is_another_message(data: st.DataObject) -> None:
    """Never another exception: flip bytes of a good header."""
    message = data.draw(strategy_of(messages.AppendMessage))
    header, payload = split(encode(message))
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(damaged, payload)
    except FramingError:
        return
    assert type(found) in KINDS


def test_messages_cross_a_socket_and_its_end_is_the_end() -> None:
    big = messages.AppendFrame(
        context=1, frame=messages.Frame(rgb=np.full((480, 640, 3), 7, np.uint8), time_s=1.5)
    )
    sent = [messages.Close(context=1), big, messages.Close(context=2)]
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def write() -> None:
            for message in sent:
                framing.write_buffers(theirs, encode(message))
            theirs.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        found = list(read_messages(ours))
        writer.join()
    assert all(map(is_equal, found, sent))
    assert len(found) == len(sent)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        framing.PREFIX.pack(10, 0) + b"short",
        framing.PREFIX.pack(2**32 - 1, 0),
        framing.PREFIX.pack(0, 2**63),
        struct.pack("!IQ", 0, 0),
    ],
)
def test_a_broken_stream_is_an_error_at_once(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        with pytest.raises(FramingError):
            list(read_messages(ours))


def test_what_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_PAYLOAD_BYTES", 100)
    monkeypatch.setattr(framing, "MAX_HEADER_BYTES", 100)
    with pytest.raises(FramingError, match="payload"):
        encode(messages.AppendAudio(context=1, pcm=np.zeros(26, np.float32)))
    with pytest.raises(FramingError, match="header"):
        encode(messages.Open(context=1, instructions="x" * 100, voice=None))


def test_payload_bytes_counts_arrays_and_texts() -> None:
    frame = messages.Frame(rgb=np.zeros((4, 4, 3), np.uint8), time_s=0)
    part = messages.AudioPart(pcm=np.zeros(10, np.float32), frames=(frame, frame))
    message = messages.Message(role="user", parts=(part, messages.TextPart(text="x" * 50)))
    call = messages.AppendMessage(context=1, message=message)
    assert 2 * 48 + 40 + 50 <= payload_bytes(call) <= 2 * 48 + 40 + 50 + 64
