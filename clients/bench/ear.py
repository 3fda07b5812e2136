"""What a listener hears of an Opus stream whose packets come late, out of order, or not: sans-I/O.

A player with an even clock, as browsers have it. It waits as long as packets have lately been late;
a packet that is later makes it wait longer, and only silence takes that wait back. A packet that
never comes leaves a hole: nothing is asked for again, nothing is concealed, so a browser sounds
better than this at the same moments.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from aiortc.codecs.opus import OpusDecoder
from aiortc.jitterbuffer import JitterFrame
from av import AudioFrame

from clients.bench.measure import SILENT_PEAK, Pcm16

CLOCK_HZ = 48_000
PACKET_SAMPLES = 960
REMEMBERED = 100  # packets, two seconds of them, whose lateness says how long to wait
MARGIN_S = 0.005
MAX_LATE_S = 0.5  # what is later has never come
MAX_LOST = 10  # in a row
BREAK_S = 0.06  # of silence inside sound: a listener notices


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """pcm: [num_samples] at 48 kHz, from the moment asked for. `num_breaks`: silences of 60 ms and
    more that the network made inside sound; `missing_share`: of all packets.
    """

    pcm: Pcm16
    num_breaks: int
    missing_share: float


@dataclass(slots=True)
class _Packet:
    timestamp: int  # counts on over the wrap
    at_s: float
    pcm: Pcm16

    @property
    def is_silent(self) -> bool:
        return int(np.abs(self.pcm.astype(np.int32)).max(initial=0)) <= SILENT_PEAK


class Ear:
    """See the module's docstring. `take` packets as they come, then ask `heard`."""

    def __init__(self) -> None:
        self._packets: dict[int, tuple[float, bytes]] = {}
        self._newest: int | None = None

    def take(self, timestamp: int, payload: bytes, at_s: float) -> None:
        """An RTP packet came. `timestamp`: as on the wire, at 48 kHz."""
        if self._newest is not None:
            ahead = (timestamp - self._newest) % 2**32
            timestamp = self._newest + (ahead - 2**32 if ahead >= 2**31 else ahead)
        self._newest = timestamp if self._newest is None else max(self._newest, timestamp)
        self._packets.setdefault(timestamp, (at_s, payload))

    def heard(self, from_s: float, until_s: float) -> Heard:
        """The sound between two moments of the clock by which packets came."""
        pcm = np.zeros(max(0, round((until_s - from_s) * CLOCK_HZ)), np.int16)
        packets = self._decoded()
        player = _Player()
        num_missing = 0
        for packet in packets:
            num_missing += player.missing(packet)
            if player.is_lost(packet):
                num_missing += 1
                continue
            starts_s = player.play(packet)
            if starts_s is None:
                continue
            start = round((starts_s - from_s) * CLOCK_HZ)
            part = packet.pcm[max(0, -start) : max(0, len(pcm) - start)]
            pcm[max(0, start) : max(0, start) + len(part)] = part
        total = len(packets) + num_missing
        return Heard(
            pcm=pcm, num_breaks=player.num_breaks, missing_share=num_missing / max(1, total)
        )

    def _decoded(self) -> list[_Packet]:
        """In the order of their sound."""
        decoder, packets = OpusDecoder(), []
        for timestamp, (at_s, payload) in sorted(self._packets.items()):
            for frame in decoder.decode(JitterFrame(data=payload, timestamp=timestamp)):
                assert isinstance(frame, AudioFrame)
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                packets.append(_Packet(timestamp, at_s, samples.astype(np.int16)))
        return packets


class _Player:
    """When each packet sounds. `_offset_s`: from a packet's timestamp to its sound."""

    def __init__(self) -> None:
        self.num_breaks = 0
        self._offset_s = -math.inf
        self._free_s = -math.inf  # when all that was played is over
        self._transits_s: deque[float] = deque(maxlen=REMEMBERED)
        self._expected: int | None = None
        self._quiet_s = 0.0  # missing sound since the last packet that was heard
        self._was_loud = False
        self._num_lost = 0

    def missing(self, packet: _Packet) -> int:
        """How many packets should have been between the last one and this."""
        gap = 0 if self._expected is None else packet.timestamp - self._expected
        self._expected = packet.timestamp + len(packet.pcm)
        self._quiet_s += max(0, gap) / CLOCK_HZ
        return max(0, gap) // PACKET_SAMPLES

    def is_lost(self, packet: _Packet) -> bool:
        """Whether it comes too late to be heard; after many of those the player begins anew."""
        late_s = self._transit_s(packet) - self._offset_s
        if not self._transits_s or late_s <= MAX_LATE_S or self._num_lost == MAX_LOST:
            self._num_lost = 0
            return False
        self._num_lost += 1
        self._quiet_s += len(packet.pcm) / CLOCK_HZ
        return True

    def play(self, packet: _Packet) -> float | None:
        """The moment at which it sounds; None: it is silence that is left out to catch up."""
        transit_s = self._transit_s(packet)
        self._transits_s.append(transit_s)
        offset_s = self._offset_s if self._was_loud else max(self._transits_s) + MARGIN_S
        late_s = max(0.0, transit_s - offset_s)
        starts_s = packet.timestamp / CLOCK_HZ + offset_s + late_s
        is_loud = not packet.is_silent
        if starts_s < self._free_s - 1e-6:
            if not is_loud:
                self._was_loud = False
                return None
            starts_s = self._free_s
        self._quiet_s += late_s
        if self._was_loud and is_loud and self._quiet_s >= BREAK_S:
            self.num_breaks += 1
        self._quiet_s, self._was_loud = 0.0, is_loud
        self._offset_s = starts_s - packet.timestamp / CLOCK_HZ
        self._free_s = starts_s + len(packet.pcm) / CLOCK_HZ
        return starts_s

    @staticmethod
    def _transit_s(packet: _Packet) -> float:
        return packet.at_s - packet.timestamp / CLOCK_HZ
