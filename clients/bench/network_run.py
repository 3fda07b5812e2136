"""One receiver over one bad network: a sender here, a relay, and a receiver in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import struct
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import aiortc.rtcrtpsender
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import get_encoder as stock_encoder
from aiortc.codecs.opus import OpusEncoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, AudioResampler, CodecContext

from clients.bench import sweep
from clients.bench.errors import BenchError
from clients.bench.impairment import CLEAN, Condition
from clients.bench.measure import Pcm16
from clients.bench.relay import Relay, server_endpoint, through_relay, without_candidates

ReceiverKind = Literal["aiortc", "adaptive", "wrtc"]

RATE_HZ = 48_000
PACKET_SAMPLES = 960
PACKET_S = PACKET_SAMPLES / RATE_HZ
OPEN_TIMEOUT_S = 20.0
SETTLE_S = 1.0  # of clean network before it gets bad

_RECORD = struct.Struct("<dII")
_HOME = Path(__file__).parents[2]
_RECEIVER = "daemon.bare_receiver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What the network is like; `storm` takes the place of `condition` in the middle third."""

    name: str
    condition: Condition
    storm: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """All that is known of one run. Seconds count from the first sample of the sweep.

    Args:
        began_s: when that was, on the monotonic clock.
        pcm / at_s / rate_hz: all that the receiver gave, and when each sample was there.
        passed: the numbers of the packets that the relay let through; the first one is 0.
        bad_s: when the network became bad. storm_s: when the storm began and ended.
        cpu_share: of one core, over the run.
    """

    began_s: float
    pcm: Pcm16
    at_s: sweep.Seconds
    rate_hz: int
    passed: frozenset[int]
    bad_s: float
    storm_s: tuple[float, float] | None
    end_s: float
    cpu_share: float


class BrowserLikeEncoder(OpusEncoder):
    """Opus as browsers send speech: mono, 32 kb/s, with in-band FEC."""

    def __init__(self) -> None:
        codec = CodecContext.create("libopus", "w")
        codec.bit_rate, codec.sample_rate = 32_000, RATE_HZ
        codec.format, codec.layout = "s16", "mono"
        codec.options = {"application": "voip", "fec": "1", "packet_loss": "10"}
        codec.time_base = fractions.Fraction(1, RATE_HZ)
        self.codec = codec
        self.resampler = AudioResampler(
            format="s16", layout="mono", rate=RATE_HZ, frame_size=PACKET_SAMPLES
        )
        self.first_packet_pts = None


class SweepTrack(MediaStreamTrack):
    """The sweep, each packet at the moment at which a microphone would have it."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.began_s: float | None = None
        self._num_packets = 0

    async def recv(self) -> AudioFrame:
        """See `MediaStreamTrack`."""
        if self.began_s is None:
            self.began_s = time.monotonic()
        start = self._num_packets * PACKET_SAMPLES
        self._num_packets += 1
        due_s = self.began_s + self._num_packets * PACKET_S
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        pcm = sweep.samples(start, PACKET_SAMPLES, RATE_HZ)
        frame = AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, start
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        return frame


class Receiver:
    """The other process. `records` grows while it lives."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._records: list[tuple[float, int, Pcm16]] = []
        self._recording: asyncio.Task[None] | None = None
        self.cpu_s = 0.0

    async def answer(self, offer: str) -> str:
        """Its answer to an offer. Raises `ConnectionError` where it gives none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"sdp": offer}).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise ConnectionResetError("it ended before it answered")
        self._recording = asyncio.get_running_loop().create_task(self._record(), name="receiver")
        return str(json.loads(line)["sdp"])

    async def _record(self) -> None:
        """Take in what it hears, until it ends."""
        assert self._process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await self._process.stdout.readexactly(_RECORD.size)
                at_s, rate_hz, count = _RECORD.unpack(head)
                if not rate_hz:
                    self.cpu_s = at_s
                    return
                data = await self._process.stdout.readexactly(2 * count)
                self._records.append((at_s, rate_hz, np.frombuffer(data, np.int16)))

    async def end(self) -> None:
        """Tell it to stop, and wait for the rest of what it heard."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._recording is not None:
            await self._recording

    def sound(self) -> tuple[Pcm16, sweep.Seconds, int]:
        """All samples [num_samples], when each was there [num_samples], and their rate."""
        if not self._records:
            raise BenchError("the receiver heard nothing")
        rate_hz = self._records[-1][1]
        records = [record for record in self._records if record[1] == rate_hz]
        pcm = np.concatenate([pcm for _, _, pcm in records])
        at_s = np.repeat([at for at, _, _ in records], [len(pcm) for _, _, pcm in records])
        return pcm, at_s, rate_hz


@contextlib.asynccontextmanager
async def receiving(kind: ReceiverKind, python: str) -> AsyncIterator[Receiver]:
    """A receiver in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", _RECEIVER, kind),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_HOME,  # found there by an interpreter that knows nothing of us
    )
    receiver = Receiver(process)
    try:
        yield receiver
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        await receiver.end()  # its output has ended, too


async def measure(
    kind: ReceiverKind,
    scenario: Scenario,
    *,
    seconds: float,
    seed: int,
    python: str = "",
    start: asyncio.Barrier | None = None,
) -> Recording:
    """Send the sweep for `seconds` through the network of `scenario` to a receiver.

    `start`: waited at once connected, so that runs beside each other do not disturb one another by
    how they connect. `python`: the receiver's interpreter; "" is this one.

    Raises:
        BenchError: the receiver did not start, connect or hear anything.
    """
    _send_as_browsers_do()
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    track = SweepTrack()
    peer.addTrack(track)
    try:
        async with receiving(kind, python or sys.executable) as receiver:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                relay = await _connect(peer, receiver, seed)
            with contextlib.closing(relay):
                if start is not None:
                    await start.wait()
                return await _record(relay, track, receiver, scenario, seconds)
    except OSError as error:  # that it timed out, too
        raise BenchError(f"the receiver '{kind}' did not connect: {error}") from error
    finally:
        await peer.close()


async def _connect(peer: RTCPeerConnection, receiver: Receiver, seed: int) -> Relay:
    await peer.setLocalDescription(await peer.createOffer())
    answer = await receiver.answer(without_candidates(peer.localDescription.sdp))
    relay = await Relay.open(server_endpoint(answer), seed=seed)
    try:
        sdp = through_relay(answer, relay.address)
        connected = asyncio.Event()
        peer.on(
            "connectionstatechange",
            lambda: connected.set() if peer.connectionState == "connected" else None,
        )
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        await connected.wait()
    except BaseException:
        relay.close()
        raise
    return relay


async def _record(
    relay: Relay, track: SweepTrack, receiver: Receiver, scenario: Scenario, seconds: float
) -> Recording:
    await asyncio.sleep(SETTLE_S)
    began_s = track.began_s
    if began_s is None:
        raise BenchError("the sender was never asked for sound")
    bad_s = time.monotonic() - began_s
    storm_s = await _pass_time(relay, scenario, seconds, began_s)
    end_s = time.monotonic() - began_s
    await receiver.end()
    first = relay.up.sent[0] if relay.up.sent else 0
    pcm, at_s, rate_hz = receiver.sound()
    return Recording(
        began_s=began_s,
        pcm=pcm,
        at_s=at_s,
        rate_hz=rate_hz,
        passed=frozenset((number - first) % 65_536 for number in relay.up.passed),
        bad_s=bad_s,
        storm_s=storm_s,
        end_s=end_s,
        cpu_share=receiver.cpu_s / end_s,
    )


async def _pass_time(
    relay: Relay, scenario: Scenario, seconds: float, began_s: float
) -> tuple[float, float] | None:
    """Be the network of a scenario; when its storm began and ended."""
    back = _delay_only(scenario.condition)
    relay.impair(up=scenario.condition, down=back)
    if scenario.storm is None:
        await asyncio.sleep(seconds)
        return None
    await asyncio.sleep(seconds / 3)
    storm_began_s = time.monotonic() - began_s
    relay.impair(up=scenario.storm, down=back)
    await asyncio.sleep(seconds / 3)
    storm_ended_s = time.monotonic() - began_s
    relay.impair(up=scenario.condition, down=back)
    await asyncio.sleep(seconds / 3)
    return storm_began_s, storm_ended_s


def _delay_only(condition: Condition) -> Condition:
    """The way back carries only control."""
    return Condition(delay_ms=condition.delay_ms) if condition != CLEAN else CLEAN


def _send_as_browsers_do() -> None:
    """aiortc's own encoder sends 96 kb/s stereo, which has no room for FEC."""

    def get_encoder(codec: RTCRtpCodecParameters) -> Any:
        return BrowserLikeEncoder() if codec.name == "opus" else stock_encoder(codec)

    cast(Any, aiortc.rtcrtpsender).get_encoder = get_encoder
