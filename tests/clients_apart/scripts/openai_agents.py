"""`openai-agents`: validates every event strictly, calls tools and truncates by itself."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from voice import PIECE_S, REPLY_S, pieces, report, silence, speech

asked: list[str] = []


@function_tool
def weather(city: str) -> str:
    """How it is there."""
    asked.append(city)
    return "sunny"


async def main(url: str) -> None:
    agent: Any = RealtimeAgent(name="guide", instructions="Be brief.", tools=[weather])
    model = {"url": url, "api_key": "k", "initial_model_settings": {"model_name": "qwen3-omni"}}
    session = await RealtimeRunner(agent).run(model_config=model)
    num_bytes, errors = 0, []
    async with session:
        events = aiter(session)

        async def until(what: str) -> None:
            """Until a word was said, or something happened."""
            nonlocal num_bytes
            async for event in events:
                if event.type == "error":
                    errors.append(repr(event))
                if event.type == "audio":
                    num_bytes += len(event.audio.data)
                is_word = event.type == "raw_model_event" and event.data.type == "transcript_delta"
                if what == (event.data.delta.strip() if is_word else event.type):
                    return

        async def say() -> None:
            for piece in pieces(speech() + silence()):
                await session.send_audio(piece)
                await asyncio.sleep(PIECE_S)

        for last_word in ("four", "there"):
            await say()
            await until(last_word)
            await until("audio_end")
            await asyncio.sleep(REPLY_S)
        heard = num_bytes
        await say()
        await until("word9")
        over = asyncio.create_task(say())
        await until("audio_interrupted")
        await over
        await until("please")
    report(asked=asked, errors=errors, heard_s=heard / 48_000)


asyncio.run(main(sys.argv[1]))
