"""A bad network between a WebRTC client and its server: a UDP relay that both talk through.

ICE is led through it by what the client is told: the server's answer gets the relay's address in
place of the server's candidates (`through_relay`), and the offer goes without candidates
(`without_candidates`), so that the server learns of the client only by what the relay sends. Needs
no rights and no network interfaces.

The relay begins clean; `impair` makes the network bad, once the connection stands. RTP has draws of
its own, apart from STUN, DTLS and RTCP: the n-th packet of sound has the same fate in every run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from clients.bench.errors import BenchError
from clients.bench.impairment import CLEAN, Condition, Impairment

Endpoint = tuple[str, int]

_CANDIDATE = re.compile(r"^a=candidate:(\S+) 1 udp (\d+) (\d+\.\d+\.\d+\.\d+) (\d+) typ host", re.I)
_LOOPBACK = "127.0.0.1"


@dataclass(slots=True)
class Direction:
    """One way through the relay.

    `sent` and `passed` hold the sequence numbers of RTP packets, in the order in which they came
    in; the header of SRTP is not encrypted.
    """

    media: Impairment
    other: Impairment
    sent: list[int] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)

    def arrivals_s(self, data: bytes, now_s: float) -> list[float]:
        """When a datagram that is sent now comes out."""
        if not _is_rtp(data):
            return self.other.arrivals_s(now_s, len(data))
        number = int.from_bytes(data[2:4], "big")
        arrivals_s = self.media.arrivals_s(now_s, len(data))
        self.sent.append(number)
        if arrivals_s:
            self.passed.append(number)
        return arrivals_s


class Relay:
    """Between one client and the server at `target`. Made by `open`, used as a context manager."""

    def __init__(self, target: Endpoint, *, seed: int) -> None:
        self.up, self.down = (
            Direction(
                media=Impairment(seed=f"{seed} {way} media"),
                other=Impairment(seed=f"{seed} {way} other"),
            )
            for way in ("up", "down")
        )
        self._target = target
        self._client: Endpoint | None = None
        self._near: asyncio.DatagramTransport | None = None
        self._far: asyncio.DatagramTransport | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    @classmethod
    async def open(cls, target: Endpoint, *, seed: int) -> Self:
        """Begin to relay."""
        relay, loop = cls(target, seed=seed), asyncio.get_running_loop()
        bind = (_LOOPBACK if target[0] == _LOOPBACK else "0.0.0.0", 0)
        relay._near, _ = await loop.create_datagram_endpoint(
            lambda: _Side(relay._from_client), local_addr=(_LOOPBACK, 0)
        )
        relay._far, _ = await loop.create_datagram_endpoint(
            lambda: _Side(relay._from_server), local_addr=bind
        )
        return relay

    @property
    def address(self) -> Endpoint:
        """Where the client has to send to."""
        assert self._near is not None
        host, port = self._near.get_extra_info("sockname")[:2]
        return host, port

    def impair(self, *, up: Condition = CLEAN, down: Condition = CLEAN) -> None:
        """Make the network bad, or good again; packets under way are not touched."""
        self.up.media.condition = self.up.other.condition = up
        self.down.media.condition = self.down.other.condition = down

    def close(self) -> None:
        """Stop relaying; what is under way is gone. Idempotent."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for side in (self._near, self._far):
            if side is not None:
                side.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _from_client(self, data: bytes, sender: Endpoint) -> None:
        self._client = sender
        self._pass(self.up, data, lambda: self._far, self._target)

    def _from_server(self, data: bytes, sender: Endpoint) -> None:
        if self._client is not None and sender == self._target:
            self._pass(self.down, data, lambda: self._near, self._client)

    def _pass(
        self,
        direction: Direction,
        data: bytes,
        side: Callable[[], asyncio.DatagramTransport | None],
        receiver: Endpoint,
    ) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for out_s in direction.arrivals_s(data, now_s):
            if out_s <= now_s:
                _send(side(), data, receiver)
            else:
                self._later(out_s, lambda: _send(side(), data, receiver))

    def _later(self, at_s: float, send: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            send()

        timer = asyncio.get_running_loop().call_at(at_s, fire)
        self._timers.add(timer)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, on_datagram: Callable[[bytes, Endpoint], None]) -> None:
        self._on_datagram = on_datagram

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._on_datagram(data, (addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        """A port that nobody listens on (yet): as lost as any packet."""


def _send(side: asyncio.DatagramTransport | None, data: bytes, receiver: Endpoint) -> None:
    if side is not None and not side.is_closing():
        side.sendto(data, receiver)


def _is_rtp(data: bytes) -> bool:
    """RFC 7983 and RFC 5761: the first byte tells RTP and RTCP from STUN and DTLS, the second
    those two apart."""
    return len(data) >= 12 and 128 <= data[0] < 192 and not 64 <= data[1] & 0x7F < 96


def without_candidates(sdp: str) -> str:
    """An offer from which nobody learns where we are."""
    hidden = ("a=candidate", "a=end-of-candidates")
    return _joined([line for line in sdp.splitlines() if not line.startswith(hidden)])


def server_endpoint(answer: str) -> Endpoint:
    """The address of a server's answer to relay to: its first IPv4 host candidate, loopback if
    there is one.

    Raises:
        BenchError: the answer names no such address.
    """
    found = [match for line in answer.splitlines() if (match := _CANDIDATE.match(line))]
    if not found:
        raise BenchError("the server's answer has no IPv4 candidate to relay to")
    best = next((match for match in found if match[3] == _LOOPBACK), found[0])
    return best[3], int(best[4])


def through_relay(answer: str, address: Endpoint) -> str:
    """The answer with the relay as its only candidate, in every media section."""
    lines, is_open = [], False
    for line in answer.splitlines():
        if line.startswith("m="):
            is_open = True
        if not line.startswith("a=candidate"):
            lines.append(line)
        elif is_open:
            host, port = address
            lines.append(f"a=candidate:relay 1 udp 2130706431 {host} {port} typ host")
            is_open = False
    return _joined(lines)


def _joined(lines: list[str]) -> str:
    return "\r\n".join(lines) + "\r\n"
