"""The small parts of the daemon: packets, filters, pictures, queues, certificates, logs."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import logging
import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import aioice.ice
import av
import numpy as np
import pytest
from aioice import Candidate, stun
from aiortc.jitterbuffer import JitterFrame
from cryptography import x509
from uvicorn.protocols.websockets import websockets_sansio_impl

from daemon import ice, logs, rtp
from daemon.images import data_uri_bytes, decode_image
from daemon.outbox import ByteQueue
from daemon.rtp import GuardedVp8Decoder
from daemon.tls import self_signed
from pipeline.errors import BadInputError


# ------------------------------------------------------------------------------- pictures
def vp8_frame() -> bytes:
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = 64
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 30)
    picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
    packets = [*encoder.encode(picture.reformat(format="yuv420p")), *encoder.encode(None)]
    return bytes(packets[0])


def test_a_video_bomb_is_dropped_before_it_is_decoded() -> None:
    data = vp8_frame()
    assert rtp.vp8_key_frame_size(data) == (64, 64)
    bomb = data[:6] + struct.pack("<HH", 16_383, 16_383) + data[10:]
    decoded: list[bytes] = []
    drops: list[int] = []

    class Stock:
        def decode(self, frame: JitterFrame) -> list[Any]:
            decoded.append(frame.data)
            return [frame]

    guarded = GuardedVp8Decoder(Stock(), max_side=1920, on_drop=lambda: drops.append(1))
    delta = b"\x01" + bytes(20)
    for frame in (delta, bomb, delta, data, delta):
        guarded.decode(JitterFrame(data=frame, timestamp=0))
    assert decoded == [data, delta]
    assert len(drops) == 3


# ------------------------------------------------------------------------------- ICE
class Receiver(aioice.ice.Connection):
    """Notes what is handed up."""

    def __init__(self) -> None:
        super().__init__(ice_controlling=False)
        self.handed_up: list[bytes] = []

    def data_received(self, data: bytes, component: int | None) -> None:
        self.handed_up.append(data)


async def test_only_checked_peers_may_send_anything_but_stun() -> None:
    receiver = Receiver()
    protocol = ice.FilteredStunProtocol(receiver)
    protocol.local_candidate = Candidate.from_sdp("1 1 udp 1 127.0.0.1 4000 typ host")
    remote = Candidate.from_sdp("1 1 udp 1 127.0.0.1 5000 typ host")
    remote._network_host = "127.0.0.1"
    pair = aioice.ice.CandidatePair(protocol, remote)
    receiver._check_list.append(pair)
    hello = bytes.fromhex("16fefd") + bytes(40)
    protocol.datagram_received(hello, ("127.0.0.1", 5000))
    assert receiver.handed_up == [], "the pair is not checked yet"
    pair.state = aioice.ice.CandidatePair.State.SUCCEEDED
    protocol.datagram_received(hello, ("127.0.0.1", 6666))
    protocol.datagram_received(b"\x00\x01garbage", ("127.0.0.1", 6666))
    assert receiver.handed_up == [], "another address"
    protocol.datagram_received(hello, ("127.0.0.1", 5000))
    assert receiver.handed_up == [hello]
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.RESPONSE)
    assert ice._is_stun(bytes(request))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("192.0.2.5", ["192.0.2.5"]),
    ],
)
def test_offered_addresses_follow_the_host(host: str, expected: list[str]) -> None:
    assert ice.host_addresses(host) == expected
    assert "127.0.0.1" in ice.host_addresses("0.0.0.0")


@pytest.mark.parametrize(
    ("address", "host", "is_wanted"),
    [
        ("192.0.2.9", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", False),
        ("169.254.169.254", "0.0.0.0", False),
        ("224.0.0.1", "0.0.0.0", False),
        ("abc.local", "0.0.0.0", False),
    ],
)
def test_which_candidates_are_sent_to(address: str, host: str, is_wanted: bool) -> None:
    assert ice.is_wanted_candidate(address, host=host) is is_wanted


# ------------------------------------------------------------------------------- pictures
def picture(codec: str, width: int = 32, height: int = 16) -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
    encoder.time_base = Fraction(1, 1)
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 2] = 200
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=encoder.pix_fmt)
    return b"".join(bytes(each) for each in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_pictures(codec: str) -> None:
    data = picture(codec)
    rgb = decode_image(data, max_pixels=1_000, param="p")
    assert rgb.shape == (16, 32, 3)
    assert abs(int(rgb[..., 2].mean()) - 200) < 8
    with pytest.raises(BadInputError, match="32x16 is over 511 pixels"):
        decode_image(data, max_pixels=511, param="p")
    for cut in (0, 1, 10, 23, len(data) // 3):
        with pytest.raises(BadInputError):
            decode_image(data[:cut], max_pixels=1_000, param="p")


def test_picture_bombs_are_refused_by_their_header() -> None:
    png = picture("png")
    bomb = png[:16] + struct.pack(">II", 65_500, 65_500) + png[24:]
    with pytest.raises(BadInputError, match="65500x65500"):
        decode_image(bomb, max_pixels=4_000_000, param="p")
    for other in (b"<svg/>", b"GIF89a" + bytes(30), b"RIFF0000WEBPVP8 "):
        with pytest.raises(BadInputError, match="Not a JPEG or PNG"):
            decode_image(other, max_pixels=4_000_000, param="p")


@pytest.mark.parametrize(
    "uri", ["http://x/y.png", "data:image/svg+xml;base64,AA==", "data:image/png,AA", ""]
)
def test_only_data_uris_of_pictures(uri: str) -> None:
    with pytest.raises(BadInputError):
        data_uri_bytes(uri, max_bytes=100, param="p")
    with pytest.raises(BadInputError, match="More than 2 bytes"):
        data_uri_bytes("data:image/png;base64,AAAAAAAA", max_bytes=2, param="p")


# ------------------------------------------------------------------------------- queue
async def test_a_full_queue_tells_the_writer_and_holds_the_reader() -> None:
    queue = ByteQueue(10)
    assert queue.try_put("x" * 50), "one message always fits"
    assert not queue.try_put("y")
    waiting = asyncio.ensure_future(queue.put("z"))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await queue.get() == "x" * 50
    await waiting
    assert queue.num_bytes == 1
    queue.close()
    assert await queue.get() == "z"
    assert await queue.get() is None
    await queue.put("never")
    assert await queue.get() is None


async def test_a_cancelled_get_loses_nothing() -> None:
    queue = ByteQueue(10)
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    waiting.cancel()
    queue.try_put("a")
    assert await queue.get() == "a"


# ------------------------------------------------------------------------------- certificates, logs
def test_a_certificate_is_kept_until_it_no_longer_fits(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path / "cache", ["192.0.2.1"])
    assert key.stat().st_mode & 0o777 == 0o600
    first = certificate.read_bytes()
    self_signed(tmp_path / "cache", ["192.0.2.1"])
    assert certificate.read_bytes() == first
    self_signed(tmp_path / "cache", ["192.0.2.1", "my.host"])
    assert certificate.read_bytes() != first
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    assert "my.host" in str(names.get_extension_for_class(x509.SubjectAlternativeName))


@pytest.mark.parametrize("form", ["text", "json"])
def test_logs_carry_the_session(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = logged(form, monkeypatch, "begins n=%d", 3)
    if form == "json":
        assert json.loads(line)["session"] == "sess_1"
        assert json.loads(line)["message"] == "begins n=3"
    else:
        assert "error daemon.x session=sess_1 begins n=3" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_client_says_stays_on_its_line(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = logged(form, monkeypatch, "model=%s", "a\nerror forged\x1b[2J\u2028")
    assert out.count("\n") == 1
    assert "\x1b" not in out
    if form == "text":
        assert out.endswith("model=a\\nerror forged\\x1b[2J\\u2028\n")


def test_a_refused_upgrade_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    source = inspect.getsource(websockets_sansio_impl)
    (told,) = re.findall(r'self\.logger\.error\("(ASGI callable[^"]* handshake\.)"\)', source)
    assert not logged("text", monkeypatch, told, name="uvicorn.error")
    assert logged("text", monkeypatch, "another", name="uvicorn.error")


def logged(
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    *args: object,
    name: str = "daemon.x",
) -> str:
    """What a record of session sess_1 looks like on standard error."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    token = logs.session_id.set("sess_1")
    try:
        logs.configure("info", form)
        logging.getLogger(name).error(message, *args)
    finally:
        logs.session_id.reset(token)
        root.handlers[:] = before
        root.setLevel(level)
    return out.getvalue()
