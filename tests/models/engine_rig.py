"""A rig for engine tests: the oracle's weights behind a chat format that needs no tokenizer.

Text is written as numbers: "1000 1001" is those two ids, and the reply's text comes back the same
way. So a test says exactly which prompt the reference must see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracle import ASSISTANT, IM_END, IM_START, NEWLINE, SYSTEM, USER, VISION_END, Oracle

from models.content import (
    AudioEvent,
    CallEvent,
    EndEvent,
    EngineEvent,
    FaultEvent,
    ReplyOptions,
    TextEvent,
)
from models.encoding import WindowPolicy
from models.engine import Engine, EngineOptions
from models.generation import GenerationSettings, read_generation
from models.qwen3_omni.model import Qwen3Omni
from models.weights import load_model

ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
GREEDY = ReplyOptions(greedy=True, max_tokens=8)


class NumberDetokenizer:
    """Shows each id as a word."""

    def push(self, token: int) -> str:
        return f"{token} "

    def flush(self) -> str:
        return ""


class NumberChat:
    """ChatML over numbers instead of words."""

    vision_end_id = VISION_END
    tool_call_id = 151657
    tool_call_end_id = 151658

    def system_text(self, instructions: str, tools: Sequence[Any] = ()) -> str:
        return instructions

    def encode_rendered(self, text: str) -> list[int]:
        return [*self.open_ids("system"), *self.encode(text), *self.close_ids()]

    def open_ids(self, role: str) -> list[int]:
        return [IM_START, ROLES[role], NEWLINE]

    def close_ids(self) -> list[int]:
        return [IM_END, NEWLINE]

    def assistant_header_ids(self) -> list[int]:
        return self.open_ids("assistant")

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def detokenizer(self) -> NumberDetokenizer:
        return NumberDetokenizer()


@dataclass(slots=True)
class Collected:
    """What one reply brought."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    codes: list[tuple[int, ...]] = field(default_factory=list)
    chunks: list[np.ndarray] = field(default_factory=list)
    calls: list[CallEvent] = field(default_factory=list)
    end: EndEvent | None = None

    @property
    def pcm(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int16), *self.chunks])


class Rig:
    """An engine and a place for its events."""

    def __init__(
        self,
        model: Qwen3Omni,
        oracle: Oracle,
        *,
        frames: int,
        windows: WindowPolicy,
        clock: Callable[[], float] = time.perf_counter,
        **options: Any,
    ) -> None:
        generation = read_generation(oracle.folder, oracle.config)
        self.engine = Engine(
            model=model,
            config=oracle.config,
            chat=NumberChat(),  # type: ignore[arg-type]
            generation=limited(generation, frames),
            folder=Path(oracle.folder),
            options=EngineOptions(windows=windows, **options),
            clock=clock,
        )
        self.engine._maker._pace.frames_per_char = 0.2  # words are long numbers here
        self.replies: dict[int, Collected] = {}
        self.faults: list[str] = []

    def step(self) -> list[EngineEvent]:
        """One unit of work; its events are kept."""
        events = self.engine.step()
        for event in events:
            if isinstance(event, FaultEvent):
                self.faults.append(event.error)
                continue
            reply = self.replies.setdefault(event.response, Collected())
            match event:
                case TextEvent():
                    reply.text += event.text
                    reply.ids.extend(event.ids)
                case AudioEvent():
                    reply.codes.append(event.codes)
                    reply.chunks.append(event.pcm)
                case CallEvent():
                    reply.calls.append(event)
                case EndEvent():
                    assert reply.end is None, "a reply ends once"
                    reply.end = event
        return events

    def drain(self) -> None:
        """Work until nothing is left to do."""
        for _ in range(10_000):
            if not self.engine.has_work:
                return
            self.step()
        raise AssertionError("the engine never rests")

    def ask(self, context: int, response: int, options: ReplyOptions = GREEDY) -> Collected:
        """Respond and work until the reply has ended and nothing is left."""
        self.engine.respond(context, response, options)
        self.drain()
        return self.replies[response]


def limited(settings: GenerationSettings, frames: int) -> GenerationSettings:
    """The same settings with the talker cut at so many codes, as the oracle is asked."""
    return replace(settings, talker=replace(settings.talker, max_new_tokens=frames))


def load_for_engine(oracle: Oracle) -> Qwen3Omni:
    """The oracle's checkpoint in our modules."""
    return load_model(oracle.folder, oracle.config, device=torch.device("cpu"), dtype=torch.float32)
