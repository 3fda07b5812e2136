"""A session over WebSocket: audio as base64 PCM at 24 kHz in both directions."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from clients.bench.address import Address, refusal
from clients.bench.errors import BenchError
from clients.bench.microphone import Microphone
from clients.bench.peer import Event, Listener

RATE_HZ = 24_000
MAX_MESSAGE_BYTES = 24 * 2**20


async def open_socket(address: Address) -> ClientConnection:
    """A new session's socket.

    Raises:
        BenchError: no server there, or it refuses.
    """
    try:
        return await connect(
            address.websocket_url,
            additional_headers=address.headers,
            ssl=address.tls,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
        )
    except InvalidStatus as error:
        answer = error.response
        raise BenchError(refusal(answer.status_code, (answer.body or b"").decode())) from error
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise BenchError(f"no WebSocket at {address.base} ({error})") from error


class WebSocketPeer:
    """Implements `clients.bench.peer.Peer`."""

    is_paced = False

    def __init__(self, address: Address) -> None:
        self.microphone = Microphone(RATE_HZ)
        self._address = address
        self._socket: ClientConnection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, listener: Listener) -> None:
        """See `Peer`."""
        self._socket = await open_socket(self._address)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._read(self._socket, listener), name="bench-ws-read"),
            loop.create_task(self._speak(), name="bench-ws-speak"),
        ]

    async def send(self, event: Event) -> None:
        """See `Peer`."""
        assert self._socket is not None, "send before open"
        try:
            await self._socket.send(json.dumps(event))
        except ConnectionClosed:
            return  # the reader tells it

    async def close(self) -> None:
        """See `Peer`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    async def drop(self) -> None:
        """See `Peer`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.transport.abort()
            await self._socket.wait_closed()

    async def _speak(self) -> None:
        while True:
            pcm = await self.microphone.next_block()
            audio = base64.b64encode(pcm.astype("<i2").tobytes()).decode()
            await self.send({"type": "input_audio_buffer.append", "audio": audio})

    async def _read(self, socket: ClientConnection, listener: Listener) -> None:
        try:
            async for message in socket:
                self._received(json.loads(message), listener)
        except ConnectionClosed as closed:
            listener.on_closed(f"the server closed the connection ({closed})")
            return
        listener.on_closed("the server closed the connection")

    def _received(self, event: dict[str, Any], listener: Listener) -> None:
        at = time.monotonic()
        if event.get("type") == "response.output_audio.delta":
            pcm = np.frombuffer(base64.b64decode(event["delta"]), "<i2")
            listener.on_audio(pcm, RATE_HZ, at, 0)
        else:
            listener.on_event(event)
