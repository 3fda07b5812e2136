"""`openai`, its client with asyncio: hears while it speaks, as a microphone does; it calls the tool
and truncates by hand, and holds each event against the SDK's types, strictly.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from typing import Any

from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from voice import REPLY_S, pieces, report, silence, speech

WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


class Listener:
    """What comes from the server, noted as it comes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self.errors: list[str] = []
        self.num_bytes = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            raw = await self._connection.recv_bytes()
            SERVER_EVENT.validate_json(raw, strict=True)
            event = self._connection.parse_event(raw)
            if event.type == "error":
                self.errors.append(event.error.message)
            if event.type == "response.output_audio.delta":
                self.num_bytes += len(base64.b64decode(event.delta))
            self._events.put_nowait(event)

    async def until(self, kind: str, **fields: str) -> Any:
        """The next event of a type, with such fields."""
        while True:
            event = await self._events.get()
            if event.type == kind and all(getattr(event, key) == fields[key] for key in fields):
                return event


async def say(connection: Any, pcm: bytes) -> None:
    """Sound of the user, piece by piece; faster than anybody speaks."""
    for piece in pieces(pcm):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


async def call_the_tool(connection: Any, heard: Listener) -> str:
    """A spoken turn that the model answers with a call; its result is spoken."""
    await say(connection, speech() + silence())
    call = await heard.until("response.function_call_arguments.done")
    await heard.until("response.done")
    await connection.conversation.item.create(
        item={"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    )
    await connection.response.create()
    await heard.until("response.done")
    return str(call.arguments)


async def interrupt(connection: Any, heard: Listener) -> None:
    """Speak while the reply is played, and tell how much of it was."""
    await say(connection, speech() + silence())
    word = await heard.until("response.output_audio_transcript.delta", delta=" word9")
    await asyncio.sleep(0.2)  # so much of it was played
    await say(connection, speech())
    await heard.until("input_audio_buffer.speech_started")
    await connection.conversation.item.truncate(
        item_id=word.item_id, content_index=0, audio_end_ms=200
    )
    done = await heard.until("response.done")
    assert done.response.status_details.reason == "turn_detected", done
    truncated = await heard.until("conversation.item.truncated", item_id=word.item_id)
    assert truncated.audio_end_ms == 200, truncated
    await say(connection, silence())
    await heard.until("response.output_audio_transcript.done", transcript="Then go on please")
    await heard.until("response.done")


async def main(url: str) -> None:
    """The play."""
    base_url = url.replace("ws://", "http://").partition("/realtime")[0]
    async with (
        AsyncOpenAI(api_key="k", base_url=base_url, max_retries=0) as client,
        client.realtime.connect(model="qwen3-omni") as connection,
        asyncio.TaskGroup() as group,
    ):
        heard = Listener(connection)
        listening = group.create_task(heard.run())
        await connection.session.update(session={"type": "realtime", "tools": [WEATHER]})
        await say(connection, speech() + silence())
        await heard.until("response.done")
        await asyncio.sleep(REPLY_S)
        asked = await call_the_tool(connection, heard)
        await asyncio.sleep(REPLY_S)
        heard_s = heard.num_bytes / 48_000
        await interrupt(connection, heard)
        listening.cancel()
        report(asked=[asked], errors=heard.errors, heard_s=heard_s)


asyncio.run(main(sys.argv[1]))
