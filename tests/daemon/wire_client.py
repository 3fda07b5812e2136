"""A client of the raw wire: sends events as they are, keeps all that comes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import websockets
from daemon_rig import Rig, silence, tone
from websockets.asyncio.client import ClientConnection

TURN = silence(0.4) + tone(0.5) + silence(0.9)


class Wire:
    """One connection. `events` is everything since the first."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def append(self, pcm: bytes) -> None:
        audio = base64.b64encode(pcm).decode()
        await self.send("input_audio_buffer.append", audio=audio)

    async def update(self, **session: Any) -> dict[str, Any]:
        """Change the session; what it is then."""
        await self.send("session.update", session={"type": "realtime", **session})
        view: dict[str, Any] = (await self.until("session.updated"))[-1]["session"]
        return view

    async def type(self, text: str, **fields: Any) -> str:
        """Create a typed turn; its id."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item, **fields)
        done = (await self.until("conversation.item.done"))[-1]
        return str(done["item"]["id"])

    async def reply(self, **response: Any) -> list[dict[str, Any]]:
        """Ask for a reply; its events to the end."""
        await self.send("response.create", response=response)
        return await self.until("rate_limits.updated")

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            event: dict[str, Any] = json.loads(await self.socket.recv())
        self.events.append(event)
        return event

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """What comes up to an event of a kind."""
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != kind:
            seen.append(await self.next())
        return seen

    async def error(self) -> dict[str, Any]:
        """The next error."""
        found: dict[str, Any] = (await self.until("error"))[-1]["error"]
        return found

    async def check_open(self) -> None:
        """The session lives and has nothing else to say."""
        view = await self.update(instructions="still here")
        assert view["instructions"] == "still here"

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


@contextlib.asynccontextmanager
async def wire(rig: Rig, query: str = "", **options: Any) -> AsyncIterator[Wire]:
    """A connection that has seen its `session.created`."""
    async with websockets.connect(rig.ws + query, compression=None, **options) as socket:
        connection = Wire(socket)
        await connection.next()
        yield connection


def audio_bytes(events: list[dict[str, Any]], item_id: str | None = None) -> int:
    """Bytes of speech in the deltas (of an item)."""
    return sum(
        len(base64.b64decode(event["delta"]))
        for event in events
        if event["type"] == "response.output_audio.delta" and item_id in (None, event["item_id"])
    )
