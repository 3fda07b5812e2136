"""The unchanged `openai-agents` SDK, which validates every event strictly, calls a tool."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from daemon_rig import serving
from fake_engine import Script

pytest.importorskip("agents", reason="openai-agents is not installed")

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner

CALL = Script(words=(), num_frames=0, calls=(("weather", '{"city": "Rome"}'),))


async def test_a_tool_is_called_and_its_answer_spoken() -> None:
    asked: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """How it is there."""
        asked.append(city)
        return "sunny"

    agent: Any = RealtimeAgent(name="guide", instructions="Be brief.", tools=[weather])
    async with serving(CALL) as rig:
        session = await RealtimeRunner(agent).run(
            model_config={
                "url": rig.ws,
                "api_key": "k",
                "initial_model_settings": {"model_name": "qwen3-omni"},
            }
        )
        async with session, asyncio.timeout(20):
            await session.send_message("hi")
            async for event in session:
                assert event.type != "error", event
                if event.type == "tool_start":
                    rig.engine.script = Script()
                if event.type == "audio_end":
                    break
        assert asked == ["Rome"]
        assert rig.engine.contexts[0].instructions == "Be brief."
        assert rig.engine.contexts[0].story == [
            "user: hi",
            "user: -> sunny",
            "assistant: One two three four",
        ]
