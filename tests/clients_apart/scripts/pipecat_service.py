"""`pipecat-ai`: its Realtime service in a pipeline, with pipecat's own tool calling and truncation.

A failed validation of any event ends its receiving, so that a play that ends proves them all.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from loguru import logger
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    CancelFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMRunFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from voice import PIECE_S, RATE_HZ, REPLY_S, pieces, report, silence, speech

asked: list[str] = []
WEATHER = FunctionSchema(
    name="weather",
    description="How it is there",
    properties={"city": {"type": "string"}},
    required=["city"],
)


async def weather(params: Any) -> None:
    """The tool."""
    asked.append(params.arguments["city"])
    await params.result_callback("sunny")


class Ear(FrameProcessor):
    """What comes out of the service."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0
        self.errors: list[str] = []
        self.seen: asyncio.Queue[str] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note it and pass it on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.num_bytes += len(frame.audio)
        elif isinstance(frame, TTSTextFrame):
            self.seen.put_nowait(frame.text.strip())
        elif isinstance(frame, InterruptionFrame):
            self.seen.put_nowait("interrupted")
        elif isinstance(frame, ErrorFrame):
            self.errors.append(str(frame.error))
        await self.push_frame(frame, direction)

    async def until(self, what: str) -> None:
        """Wait until a word was said, or something happened."""
        while await self.seen.get() != what:
            pass


async def talk(task: PipelineTask, ear: Ear) -> float:
    """The play; how much was heard of the first two replies."""

    async def say() -> None:
        for piece in pieces(speech() + silence()):
            frame = InputAudioRawFrame(audio=piece, sample_rate=RATE_HZ, num_channels=1)
            await task.queue_frame(frame)
            await asyncio.sleep(
                PIECE_S
            )  # an interruption travels slower than speech without pauses

    await ear.until("four")  # a pipeline begins by answering its context
    await asyncio.sleep(REPLY_S)
    await say()
    await ear.until("there")
    await asyncio.sleep(REPLY_S)
    heard = ear.num_bytes
    await say()
    await ear.until("word9")
    await say()
    await ear.until("interrupted")
    await ear.until("please")
    await asyncio.sleep(REPLY_S)
    return heard / 48_000


async def main(url: str) -> None:
    """Build the pipeline and hold the conversation."""
    properties = events.SessionProperties(
        output_modalities=["audio"],
        audio=events.AudioConfiguration(
            input=events.AudioInput(
                format=events.PCMAudioFormat(),
                turn_detection=events.TurnDetection(),
                transcription=events.InputAudioTranscription(),
            )
        ),
    )
    service = OpenAIRealtimeLLMService(
        api_key="k",
        base_url=url.partition("?")[0],
        settings=OpenAIRealtimeLLMService.Settings(
            model="qwen3-omni",
            system_instruction="Be brief.",
            session_properties=properties,
        ),
    )
    service.register_function("weather", weather)
    context = LLMContext(
        [{"role": "user", "content": "Hello"}], ToolsSchema(standard_tools=[WEATHER])
    )
    both = LLMContextAggregatorPair(context)
    ear = Ear()
    task = PipelineTask(
        Pipeline([both.user(), service, ear, both.assistant()]),
        params=PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ),
    )
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await task.queue_frame(LLMRunFrame())
    heard_s = await talk(task, ear)
    await task.queue_frame(CancelFrame())
    await running
    report(asked=asked, errors=ear.errors, heard_s=heard_s)


logger.remove()
logger.add(sys.stderr, level="WARNING")
asyncio.run(main(sys.argv[1]))
