"""An engine under measurement: questions of noise, greedy replies of a fixed length.

The question is fed as it would arrive, so what is measured is the time after its end. No end token
is accepted.
"""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.chat import ChatFormat
from models.commands.figures import (
    OUTPUT_HZ,
    Reply,
    batching_figures,
    reply_figures,
    session_figures,
    turn_figures,
)
from models.commands.floor import Floor
from models.commands.questions import (
    CAMERA_SAMPLES,
    CHUNK_SAMPLES,
    QUESTION_S,
    noise,
    picture,
)
from models.config import OmniConfig
from models.content import AudioEvent, EndEvent, FaultEvent, ReplyOptions, TextEvent
from models.encoding import WindowPolicy
from models.engine import Engine, EngineOptions
from models.errors import ModelError
from models.generation import GenerationSettings, read_generation
from models.qwen3_omni.model import Qwen3Omni
from models.skeleton import count_parameters

FRAME_S = 0.08
NUM_REPLIES = 3  # of which the fastest is reported
INSTRUCTIONS = "You are a voice assistant. Answer briefly."
SHORT_TOKENS = 3


class Bench:
    """An engine whose replies have a fixed length."""

    def __init__(
        self,
        *,
        model: Qwen3Omni,
        config: OmniConfig,
        chat: ChatFormat,
        generation: GenerationSettings,
        folder: Path,
        seconds: float,
        window_s: int | None = None,
        has_camera: bool = False,
        by_steps: bool | None = False,
        max_context_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.chat = chat
        self.num_frames = round(seconds / FRAME_S)
        self.num_tokens = self.num_frames + 1
        endless = replace(generation.thinker, eos_ids=frozenset())
        talker = replace(generation.talker, max_new_tokens=self.num_frames + 1)
        self._options = EngineOptions(
            windows=_windows(window_s), by_steps=by_steps, max_context_tokens=max_context_tokens
        )
        self._make_engine = partial(
            Engine,
            model=model,
            config=config,
            chat=chat,
            generation=replace(generation, thinker=endless, talker=talker),
            folder=folder,
        )
        self.engine = self._make_engine(options=self._options)
        self.has_camera = has_camera
        self.question = noise(QUESTION_S)
        self.instructions = INSTRUCTIONS
        self._ids = 0

    @classmethod
    def around(
        cls,
        model: Qwen3Omni,
        config: OmniConfig,
        folder: Path,
        *,
        seconds: float,
        window_s: int | None = None,
        has_camera: bool = False,
        by_steps: bool | None = False,
    ) -> Bench:
        """A model with the tokenizer, sampling and preprocessing of a checkpoint folder."""
        return cls(
            model=model,
            config=config,
            chat=ChatFormat.load(folder, config),
            generation=read_generation(folder, config),
            folder=folder,
            seconds=seconds,
            window_s=window_s,
            has_camera=has_camera,
            by_steps=by_steps,
        )

    # ------------------------------------------------------------------ measuring
    def report(self, floor: Floor, *, turns: int, counts: list[int]) -> dict[str, Any]:
        """All figures of our engine, with one warm-up apart."""
        self.one_reply(self.num_tokens)
        replies = [self.one_reply(self.num_tokens) for _ in range(NUM_REPLIES)]
        reply = min(replies, key=_total)
        turned = turn_figures(self.long_conversation(turns))
        return {
            "machine": f"{platform.system()} {platform.machine()}, {self.engine.device}",
            "dtype": self.engine.dtype,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "by_steps": self.engine.works_by_steps,
            "parameters": count_parameters(self.config),
            "weight_bytes": sum(p.nbytes for p in self.model.parameters()),
            "reply_s": round(reply.audio_s, 3),
            "floor": floor.record(),
            "num_replies": {"ours": NUM_REPLIES},
            "ours": reply_figures(reply, floor) | turned,
            "sessions": {str(count): self.compared(count) for count in counts},
        }

    def one_reply(self, num_tokens: int) -> Reply:
        """A new conversation of one turn."""
        context = self._open()
        self._speak(context)
        reply = self._reply(context, num_tokens)
        self.engine.close(context)
        return reply

    def long_conversation(self, turns: int) -> list[Reply]:
        """The short replies of one conversation, in order."""
        context = self._open()
        replies = []
        for _ in range(turns):
            self._speak(context)
            replies.append(self._reply(context, SHORT_TOKENS))
        self.engine.close(context)
        return replies

    def compared(self, count: int) -> dict[str, float]:
        """Several sessions asked at once, and how much more speech a second they get than where
        nothing is done together: the better of two runs of each, taken in turns.
        """
        if count == 1:
            return self.together(1)
        usual = self.engine
        one_by_one = self._make_engine(options=replace(self._options, max_batch=1))
        together, apart = [], []
        for _ in range(2):
            together.append(self.together(count))
            self.engine = one_by_one
            apart.append(self.together(count))
            self.engine = usual
        return batching_figures(together, apart)

    def together(self, count: int) -> dict[str, float]:
        """Several sessions asked at once: their first audio, and speech made per second."""
        contexts = [self._open() for _ in range(count)]
        for context in contexts:
            self._speak(context)
        started = time.perf_counter()
        for context in contexts:
            self._respond(context, self.num_tokens)
        firsts: dict[int, float] = {}
        samples, ended = 0, 0
        while ended < count:
            for event in self.engine.step():
                now = time.perf_counter() - started
                if isinstance(event, AudioEvent):
                    firsts.setdefault(event.response, now)
                    samples += len(event.pcm)
                ended += isinstance(event, EndEvent)
        took = time.perf_counter() - started
        for context in contexts:
            self.engine.close(context)
        return session_figures(list(firsts.values()), samples, took)

    # ------------------------------------------------------------------ steps
    def _open(self) -> int:
        self._ids += 1
        self.engine.open(self._ids, instructions=self.instructions, voice=None)
        return self._ids

    def _speak(self, context: int) -> None:
        """The question, in pieces, with the engine at work between them."""
        self.engine.begin_speech(context, has_camera=self.has_camera)
        for start in range(0, len(self.question), CHUNK_SAMPLES):
            if self.has_camera and start % CAMERA_SAMPLES < CHUNK_SAMPLES:
                self.engine.append_frame(context, picture(start), time_s=start / 16_000)
            self.engine.append_audio(context, self.question[start : start + CHUNK_SAMPLES])
            self._rest()
        self.engine.end_speech(context)

    def _rest(self) -> None:
        while self.engine.has_work:
            for event in self.engine.step():
                if isinstance(event, FaultEvent):
                    raise ModelError(event.error)

    def _respond(self, context: int, num_tokens: int) -> None:
        self._ids += 1
        options = ReplyOptions(greedy=True, max_tokens=num_tokens)
        self.engine.respond(context, self._ids, options)

    def _reply(self, context: int, num_tokens: int) -> Reply:
        started, cpu_started = time.perf_counter(), time.process_time()
        self._respond(context, num_tokens)
        first, samples, left = None, 0, 0
        codes: list[tuple[int, ...]] = []
        ids: list[int] = []
        is_over = False
        while not is_over:
            for event in self.engine.step():
                match event:
                    case AudioEvent():
                        first = first or time.perf_counter()
                        samples += len(event.pcm)
                        codes.append(event.codes)
                    case TextEvent():
                        ids.extend(event.ids)
                    case EndEvent():
                        is_over, left = True, event.stages.tokens_left
                        if event.error is not None:
                            raise ModelError(event.error)
        total, cpu_total = time.perf_counter(), time.process_time()
        assert first is not None, "a reply without sound"
        return Reply(
            first_audio_ms=1000 * (first - started),
            total_ms=1000 * (total - started),
            cpu_ms=1000 * (cpu_total - cpu_started),
            audio_s=samples / OUTPUT_HZ,
            tokens_left=left,
            text_ids=tuple(ids),
            codes=tuple(codes),
        )


def _total(reply: Reply) -> float:
    return reply.total_ms


def _windows(window_s: int | None) -> WindowPolicy:
    """The engine's own, or one for speech with and without a camera."""
    if window_s is None:
        return WindowPolicy()
    return WindowPolicy(audio_window_s=window_s, camera_window_s=window_s)
