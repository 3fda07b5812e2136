"""Receiving sound: real Opus packets through the decoders, and packets through the receive path."""

from __future__ import annotations

import asyncio
import fractions

import av
import numpy as np
import pytest
from aiortc.codecs import CODECS
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from daemon import audio_source, opus
from daemon.audio_source import PacketSource, TrackSource, take_over
from daemon.media import Loudspeaker
from daemon.opus import FadingDecoder, OpusDecoder, decoder_for, opus_samples
from daemon.rtp import SpeechEncoder
from pipeline.jitter import JitterCounts
from pipeline.playout import Playout

OPUS = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48_000, channels=2, payloadType=96)


def voice(seconds: float) -> np.ndarray:
    """[num_samples] int16 at 48 kHz: something with pitch, as speech has."""
    t = np.arange(round(seconds * 48_000)) / 48_000
    waves = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12))
    return (waves * 4_000).astype(np.int16)


def encoded(pcm: np.ndarray, **options: str) -> list[bytes]:
    """Opus packets of 20 ms, mono, 32 kb/s, as browsers send speech."""
    codec = av.CodecContext.create("libopus", "w")
    codec.bit_rate, codec.sample_rate = 32_000, 48_000
    codec.format, codec.layout = "s16", "mono"
    codec.options = {"application": "voip", **options}
    packets = []
    for start in range(0, len(pcm) - 959, 960):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 960], "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, start
        frame.time_base = fractions.Fraction(1, 48_000)
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets


def rms(pcm: np.ndarray) -> float:
    return float(np.sqrt((pcm.astype(np.float64) ** 2).mean()))


@pytest.fixture
def library():  # type: ignore[no-untyped-def]
    found = opus.libopus()
    if found is None:
        pytest.skip("no libopus")
    return found


# ------------------------------------------------------------------------------- decoders
def test_opus_is_decoded_to_what_the_session_wants(library) -> None:  # type: ignore[no-untyped-def]
    decoder = OpusDecoder(library)
    packets = encoded(voice(0.5))
    assert {opus_samples(packet) for packet in packets} == {960}
    heard = [decoder.decode(packet) for packet in packets]
    assert {len(pcm) for pcm in heard} == {320}
    level = rms(np.concatenate(heard)[3_200:])
    assert 0.5 < level / rms(voice(0.5)[::3] / 32_768) < 1.5


def test_a_lost_packet_sounds_on_then_fades(library) -> None:  # type: ignore[no-untyped-def]
    decoder = OpusDecoder(library)
    heard = [decoder.decode(packet) for packet in encoded(voice(0.4))]
    concealed = [decoder.conceal(960, None) for _ in range(8)]
    assert {len(pcm) for pcm in concealed} == {320}
    level = rms(heard[-1])
    assert rms(concealed[0]) > level / 4
    edge = abs(float(concealed[0][0] - heard[-1][-1]))
    assert edge < float(np.abs(heard[-1]).max()) / 2, "no click"
    assert rms(concealed[4]) < level
    assert not concealed[6].any(), "silence after a tenth of a second"
    assert decoder.decode(encoded(voice(0.1))[2]).any()


def test_the_copy_in_the_next_packet_is_used(library) -> None:  # type: ignore[no-untyped-def]
    # a tone that steps up every packet, so that a guess from the past is wrong
    t = np.arange(960) / 48_000
    steps = [np.sin(2 * np.pi * (200 + 40 * k) * t) * 8_000 for k in range(30)]
    packets = encoded(np.concatenate(steps).astype(np.int16), fec="1", packet_loss="20")
    whole = OpusDecoder(library)
    truth = [whole.decode(packet) for packet in packets]

    def error(with_copy: bool) -> float:
        total = 0.0
        for lost in range(10, 25, 3):
            decoder = OpusDecoder(library)
            for packet in packets[:lost]:
                decoder.decode(packet)
            guess = decoder.conceal(960, packets[lost + 1] if with_copy else None)
            total += rms(guess - truth[lost])
        return total

    assert error(True) < 0.8 * error(False)


def test_what_we_send_can_be_repaired(library) -> None:  # type: ignore[no-untyped-def]
    encoder = SpeechEncoder()
    steps = [np.sin(2 * np.pi * (200 + 40 * k) * np.arange(960) / 48_000) for k in range(30)]
    packets: list[bytes] = []
    for number, step in enumerate(steps):
        pcm = (step * 8_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(pcm, 2)[None], "s16", "stereo")
        frame.sample_rate, frame.pts = 48_000, number * 960
        frame.time_base = fractions.Fraction(1, 48_000)
        payloads, timestamp = encoder.encode(frame)
        packets += payloads
        assert timestamp is None or timestamp % 960 == 0
    assert 20 <= len(packets) <= 30
    assert max(map(len, packets)) < 250, "a copy takes its bits from the rest"
    whole = OpusDecoder(library)
    truth = [whole.decode(packet) for packet in packets]
    errors = []
    for copy in (packets[16], None):
        decoder = OpusDecoder(library)
        for packet in packets[:15]:
            decoder.decode(packet)
        errors.append(rms(decoder.conceal(960, copy) - truth[15]))
    assert errors[0] < 0.8 * errors[1]


def test_broken_packets_are_silence_at_worst(library) -> None:  # type: ignore[no-untyped-def]
    for decoder in (OpusDecoder(library), FadingDecoder(OPUS)):
        for payload in (b"\xff", b"\x03", b"\x7b\xff\xff", bytes(1500)):
            assert np.isfinite(decoder.decode(payload)).all()
            assert decoder.num_samples(payload) >= 0
        assert len(decoder.conceal(960, b"\xff")) == 960 * decoder.rate_hz // 48_000


def test_durations_by_the_head_of_a_packet() -> None:
    assert [opus_samples(bytes([toc << 3])) for toc in (0, 3, 12, 15, 16, 31)] == [
        *(480, 2880, 480, 960, 120, 960)
    ]
    assert opus_samples(bytes([31 << 3 | 1])) == opus_samples(bytes([31 << 3 | 2])) == 1920
    assert opus_samples(bytes([31 << 3 | 3, 3])) == 2880
    assert opus_samples(bytes([31 << 3 | 3, 63])) == 5760
    assert opus_samples(b"") == opus_samples(bytes([3])) == 0


def test_without_libopus_the_last_packet_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opus, "libopus", lambda: None)
    decoder = decoder_for(OPUS)
    assert isinstance(decoder, FadingDecoder)
    heard = [decoder.decode(packet) for packet in encoded(voice(0.4))]
    first, second = decoder.conceal(960, None), decoder.conceal(960, None)
    assert len(first) == len(second) == len(heard[-1]) == 960
    assert rms(heard[-1]) > rms(first) > rms(second) > 0


def test_g711_goes_the_same_way() -> None:
    codec = next(each for each in CODECS["audio"] if each.mimeType == "audio/PCMU")
    decoder = decoder_for(codec)
    assert decoder.num_samples(bytes(160)) == 160
    assert len(decoder.decode(bytes(160))) == 160
    assert (decoder.clock_hz, decoder.rate_hz) == (8_000, 8_000)


# ------------------------------------------------------------------------------- the receive path
class Receiver:
    """The private places of aiortc's receiver that are used."""

    def __init__(self, *feedback: RTCRtcpFeedback) -> None:
        codec = RTCRtpCodecParameters(
            mimeType="audio/opus",
            clockRate=48_000,
            channels=2,
            payloadType=96,
            rtcpFeedback=list(feedback),
        )
        self._RTCRtpReceiver__codecs = {96: codec}
        self._RTCRtpReceiver__jitter_buffer = None
        self._RTCRtpReceiver__nack_generator = None


class Track(AudioStreamTrack):
    """Ends when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        await self.over.wait()
        raise MediaStreamError


def packet(number: int, payload: bytes, ssrc: int = 1) -> RtpPacket:
    made = RtpPacket(payload_type=96, sequence_number=number, timestamp=number * 960, ssrc=ssrc)
    made._data = payload  # type: ignore[attr-defined]
    return made


async def test_packets_become_sound_and_a_hole_is_closed_by_a_timer() -> None:
    track, heard, counts = Track(), [], []
    receiver = Receiver()
    source = take_over(receiver, track, kind="adaptive", on_counts=counts.append)  # type: ignore[arg-type]
    assert isinstance(source, PacketSource)
    assert receiver._RTCRtpReceiver__jitter_buffer is source
    task = asyncio.ensure_future(source.run(lambda pcm, rate_hz: heard.append((len(pcm), rate_hz))))
    await asyncio.sleep(0)
    packets = encoded(voice(0.2))
    source.add(packet(0, packets[0]))
    source.add(packet(2, packets[2]))
    assert len(heard) == 1
    await asyncio.sleep(0.1)
    assert sum(count for count, _ in heard) * 48_000 == 3 * 960 * heard[0][1]
    source.add(packet(9, packets[3], ssrc=2))
    total = JitterCounts()
    for each in counts:
        total = JitterCounts(played=total.played + each.played, lost=total.lost + each.lost)
    assert (total.played, total.lost) == (3, 1)
    track.over.set()
    await task
    source.add(packet(10, packets[4], ssrc=2))
    assert len(heard) == 4, "nothing is delivered after the end"


async def test_missing_packets_are_asked_for_where_the_peer_offered_it() -> None:
    for feedback, expected in (([], None), ([RTCRtcpFeedback(type="nack")], {4, 5})):
        track, receiver = Track(), Receiver(*feedback)
        source = take_over(receiver, track, kind="adaptive", on_counts=lambda _: None)  # type: ignore[arg-type]
        assert isinstance(source, PacketSource)
        task = asyncio.ensure_future(source.run(lambda pcm, rate_hz: None))
        await asyncio.sleep(0)
        source.add(packet(3, b""))
        nacks = receiver._RTCRtpReceiver__nack_generator
        if expected is None:
            assert nacks is None
        else:
            assert not nacks.add(packet(3, b""))
            assert nacks.add(packet(6, b""))
            assert nacks.missing == expected
            nacks.add(packet(30, b""))
            assert nacks.missing == set(range(20, 30))
        track.over.set()
        await task


async def test_aiortc_as_it_comes_is_a_choice() -> None:
    source = take_over(Receiver(), Track(), kind="aiortc", on_counts=lambda _: None)  # type: ignore[arg-type]
    assert isinstance(source, TrackSource)


async def test_without_the_private_places_aiortc_stays_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = take_over(object(), Track(), kind="adaptive", on_counts=lambda _: None)  # type: ignore[arg-type]
    assert isinstance(source, TrackSource)
    assert "not found" in caplog.text
    assert audio_source.log.name in {record.name for record in caplog.records}


# ------------------------------------------------------------------------------- the way back
async def test_nothing_but_a_fade_is_sent_after_a_cut() -> None:
    playout = Playout()
    loudspeaker = Loudspeaker(playout)
    playout.write("a", (voice(1.0)[::2]).astype(np.int16))
    before = np.concatenate([loudspeaker._next_packet() for _ in range(5)])
    assert rms(before) > 1_000
    playout.clear()
    after = np.concatenate([loudspeaker._next_packet() for _ in range(20)])
    loud_ms = np.flatnonzero(np.abs(after.astype(int)) > 50).max() / 48
    assert loud_ms <= 10, "the fade, and a millisecond that the resampler held"
    loudspeaker.stop()
