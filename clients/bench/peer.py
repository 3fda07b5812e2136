"""What the two transports have in common: how a conversation uses its connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from clients.bench.measure import Pcm16
from clients.bench.microphone import Microphone

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What a peer calls, on the event loop, with the monotonic second of arrival.

    `on_audio` gets samples, their rate, the moment, and how many samples were lost just before.
    """

    on_event: Callable[[Event], None]
    on_audio: Callable[[Pcm16, int, float, int], None]
    on_closed: Callable[[str], None]


class Peer(Protocol):
    """One open connection; its microphone runs from `open` to `close`."""

    microphone: Microphone
    is_paced: bool

    async def open(self, listener: Listener) -> None:
        """Connects and starts the microphone. Raises `BenchError` where that is not possible."""

    async def send(self, event: Event) -> None:
        """Sends one client event; ignored after the connection was closed."""

    async def close(self) -> None:
        """Ends the connection. Idempotent."""

    async def drop(self) -> None:
        """Ends the connection as a crash or a lost network does: without a word. Idempotent."""
