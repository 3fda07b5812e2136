"""An engine under measurement: questions of noise, greedy replies of a fixed length.

The question is fed as it would arrive, so what is measured is the time after its end. No end token
is accepted.
"""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.chat import ChatFormat
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

OUTPUT_HZ = 24_000
FRAME_S = 0.08
INSTRUCTIONS = "You are a voice assistant. Answer briefly."
SHORT_TOKENS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One measured reply: times from the end of the question. `cpu_ms` is this process's work for
    all of it, which other programs on the machine do not lengthen as they do the time.
    """

    first_audio_ms: float
    total_ms: float
    cpu_ms: float
    audio_s: float
    tokens_left: int
    text_ids: tuple[int, ...]
    codes: tuple[tuple[int, ...], ...]

    @property
    def frame_ms(self) -> float:
        """Each frame after the first, and the text token that comes with it."""
        return (self.total_ms - self.first_audio_ms) / max(1, len(self.codes) - 1)

    @property
    def rtf(self) -> float:
        """Time to make the reply, over its length."""
        return self.total_ms / 1000 / self.audio_s


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
        by_steps: bool = False,
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
        )

    # ------------------------------------------------------------------ measuring
    def report(self, floor: Floor, *, turns: int, counts: list[int]) -> dict[str, Any]:
        """All figures of our engine, with one warm-up apart."""
        self.one_reply(self.num_tokens)
        reply = min((self.one_reply(self.num_tokens) for _ in range(3)), key=_total)
        first, last = self.long_conversation(turns)
        ratio = last.first_audio_ms / first.first_audio_ms
        ours: dict[str, Any] = {
            "first_audio_ms": round(reply.first_audio_ms, 2),
            "frame_ms": round(reply.frame_ms, 3),
            "rtf": round(reply.rtf, 4),
            "audio_s_per_s": round(1 / reply.rtf, 2),
            "tokens_left_at_turn_end": reply.tokens_left,
            f"turn{turns}_over_turn1": round(ratio, 3),
            f"turn{turns}_over_turn1_cpu": round(last.cpu_ms / first.cpu_ms, 3),
            f"turn{turns}_over_turn1_tokens": round(last.tokens_left / first.tokens_left, 3),
            "reply_ms": round(reply.total_ms, 1),
            "reply_cpu_ms": round(reply.cpu_ms, 1),
            "floor_reached": round((floor.token_ms + floor.frame_ms) / reply.frame_ms, 4),
        }
        return {
            "machine": f"{platform.system()} {platform.machine()}, {self.engine.device}",
            "dtype": self.engine.dtype,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": count_parameters(self.config),
            "weight_bytes": sum(p.nbytes for p in self.model.parameters()),
            "reply_s": round(reply.audio_s, 3),
            "floor": floor.record(),
            "ours": ours,
            "sessions": {str(count): self.compared(count) for count in counts},
        }

    def one_reply(self, num_tokens: int) -> Reply:
        """A new conversation of one turn."""
        context = self._open()
        self._speak(context)
        reply = self._reply(context, num_tokens)
        self.engine.close(context)
        return reply

    def long_conversation(self, turns: int) -> tuple[Reply, Reply]:
        """The median replies, by time to first audio, of the first and of the last turns of one
        conversation.
        """
        context = self._open()
        replies = []
        for _ in range(turns):
            self._speak(context)
            replies.append(self._reply(context, SHORT_TOKENS))
        self.engine.close(context)
        few = min(5, turns)
        return _median(replies[:few]), _median(replies[-few:])

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
        best, slower = max(together, key=_speech_rate), max(map(_speech_rate, apart))
        gain = round(_speech_rate(best) / slower, 2)
        return best | {"audio_s_per_s_one_by_one": slower, "batching_gain": gain}

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
        times = sorted(firsts.values())
        return {
            "first_audio_ms_p50": round(1000 * statistics.median(times), 2),
            "first_audio_ms_max": round(1000 * times[-1], 2),
            "audio_s_per_s": round(samples / OUTPUT_HZ / took, 2),
        }

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


def _speech_rate(figures: dict[str, float]) -> float:
    return figures["audio_s_per_s"]


def _median(replies: list[Reply]) -> Reply:
    return sorted(replies, key=_first_audio)[len(replies) // 2]


def _first_audio(reply: Reply) -> float:
    return reply.first_audio_ms


def _windows(window_s: int | None) -> WindowPolicy:
    """The engine's own, or one for speech with and without a camera."""
    if window_s is None:
        return WindowPolicy()
    return WindowPolicy(audio_window_s=window_s, camera_window_s=window_s)
