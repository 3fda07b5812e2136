"""What aioice lacks for a server: which addresses it offers, and whom it listens to.

Two names of the `aioice.ice` module are replaced, once for the process:

- `get_host_addresses` leaves 127.0.0.1 out; ours follows the address that the daemon listens on.
- `StunProtocol` hands every datagram up without asking where it came from. During the DTLS
  handshake one forged ClientHello then ends the connection
  (https://www.rtcsec.com/article/novel-dos-vulnerability-affecting-webrtc-media-servers/). Ours
  takes anything but STUN only from addresses whose connectivity check has succeeded.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Any
from weakref import WeakKeyDictionary

import aioice.ice
from aioice import stun
from aiortc import RTCPeerConnection

from daemon.auth import is_loopback

_LAST_STUN_BYTE = 3  # RFC 7983: a datagram that begins with 0..3 is STUN

_system_addresses = aioice.ice.get_host_addresses
_last_packet_s: WeakKeyDictionary[aioice.ice.Connection, float] = WeakKeyDictionary()


class FilteredStunProtocol(aioice.ice.StunProtocol):
    """Drops what does not come from a checked peer; notes when the peer was last heard."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        """See `asyncio.DatagramProtocol`."""
        assert isinstance(data, bytes), type(data)
        if self._is_known(addr):
            _last_packet_s[self.receiver] = time.monotonic()
        elif not _is_stun(data):
            return
        super().datagram_received(data, addr)

    def _is_known(self, addr: tuple[Any, ...]) -> bool:
        succeeded = aioice.ice.CandidatePair.State.SUCCEEDED
        return any(
            pair.state == succeeded and pair.remote_addr == (addr[0], addr[1])
            for pair in self.receiver._check_list
        )


def _is_stun(data: bytes) -> bool:
    if not data or data[0] > _LAST_STUN_BYTE:
        return False
    try:
        stun.parse_message(data)
    except ValueError:
        return False
    return True


def install(host: str) -> None:
    """Offer the addresses that fit `host`, and filter what comes in. Idempotent; the last host
    counts.
    """

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return host_addresses(host, use_ipv4=use_ipv4, use_ipv6=use_ipv6)

    aioice.ice.get_host_addresses = addresses
    aioice.ice.StunProtocol = FilteredStunProtocol  # type: ignore[misc]


def host_addresses(host: str, *, use_ipv4: bool = True, use_ipv6: bool = True) -> list[str]:
    """Addresses to offer: the one listened on; of a wildcard all of this machine, loopback too."""
    name = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = ipaddress.ip_address("0.0.0.0")
    if not address.is_unspecified:
        return [str(address)]
    return [*_system_addresses(use_ipv4, use_ipv6), "127.0.0.1"]


def is_wanted_candidate(address: str, *, host: str) -> bool:
    """Whether to send checks to a candidate of a client. What is left out is learnt when it checks
    us.

    Names (mDNS) would have to be looked up; link-local and other special addresses are no peers of
    ours, and loopback is one only of a server that listens there.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if found.is_loopback:
        return is_loopback(host)
    return not (found.is_link_local or found.is_multicast or found.is_unspecified)


def silence_s(peer: RTCPeerConnection) -> float | None:
    """Seconds since the last packet of a connected peer; None before the first, or if aiortc hides
    it.
    """
    transceivers = peer.getTransceivers()
    if not transceivers:
        return None
    ice_transport = transceivers[0].receiver.transport.transport
    connection = getattr(ice_transport, "_connection", None)
    last_s = None if connection is None else _last_packet_s.get(connection)
    return None if last_s is None else time.monotonic() - last_s
