"""An engine without a model, for tests of the port: the methods of `models.engine.Engine`.

The instructions of a context are its script: `frames=3` frames for each reply, `step_ms=10` for
each step. A text message of one word makes something go wrong: `crash-step`, `crash-call`,
`oom-step`, `oom-call`, `die`, `refuse`, `slow-call`, `stuck`. A reply tells what the log holds.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models import content
from models.errors import CheckpointError, OverloadedError, RequestError

FRAME_SAMPLES = 1920


@dataclass
class ScriptedContext:
    script: dict[str, str]
    log: list[str] = field(default_factory=list)
    marks: dict[int, int] = field(default_factory=dict)


@dataclass
class ScriptedReply:
    context: int
    text: str
    num_frames: int
    num_made: int = 0
    status: str | None = None
    held: list[content.EngineEvent] | None = None


class ScriptedCore:
    voices = ("anna", "bert")
    device = "script"
    dtype = "none"
    is_babbling = True
    reads_words = True
    max_context_tokens = 1000

    def __init__(self) -> None:
        self.contexts: dict[int, ScriptedContext] = {}
        self.replies: dict[int, ScriptedReply] = {}
        self.outbox: list[content.EngineEvent] = []
        self.num_steps = 0

    def open(
        self, context: int, *, instructions: str, voice: str | None, tools: Sequence[Any] = ()
    ) -> None:
        if voice is not None and voice not in self.voices:
            raise RequestError(f"voice {voice!r} is unknown")
        if "full" in instructions:
            raise OverloadedError("the engine is at its limit")
        self.contexts[context] = ScriptedContext(_script(instructions))

    def configure(
        self, context: int, *, instructions: str, voice: str | None, tools: Sequence[Any] = ()
    ) -> None:
        self._context(context).script = _script(instructions)

    def close(self, context: int) -> None:
        self.contexts.pop(context, None)
        for response, reply in list(self.replies.items()):
            if reply.context == context:
                self._end(response, "cancelled")
                del self.replies[response]

    def append_message(self, context: int, message: content.Message) -> None:
        words = [part.text for part in message.parts if isinstance(part, content.Text)]
        if "refuse" in words:
            raise RequestError("this message is refused")
        if "crash-call" in words:
            raise ZeroDivisionError("a bug in a call")
        if "oom-call" in words:
            raise MemoryError("no room for a message")
        if "die" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow-call" in words:
            time.sleep(0.2)
        if "stuck" in words:  # holds the interpreter for years, as native code can
            re.match("(a+)+$", "a" * 99 + "b")
        self._context(context).log.append("+".join(words) or type(message.parts[0]).__name__)

    def begin_speech(self, context: int, *, has_camera: bool) -> None:
        self._context(context).log.append("begin")

    def append_audio(self, context: int, pcm: content.Pcm) -> None:
        assert pcm.dtype == np.float32
        self._context(context).log.append(f"audio{len(pcm)}")

    def append_frame(self, context: int, rgb: content.Rgb, *, time_s: float) -> None:
        self._context(context).log.append(f"frame{time_s:g}")

    def overhear(self, context: int, query: int, pcm: content.Pcm) -> None:
        """Reads as many words as there are samples."""
        self._context(context)
        values = dict.fromkeys(content.Reading.__dataclass_fields__, 0.0)
        reading = content.Reading(**values | {"num_words": float(len(pcm))})
        self.outbox.append(content.ReadingEvent(context=context, query=query, reading=reading))

    def end_speech(self, context: int) -> None:
        self._context(context).log.append("end")

    def set_mark(self, context: int, mark: int) -> None:
        found = self._context(context)
        found.marks[mark] = len(found.log)

    def rollback(self, context: int, mark: int) -> None:
        found = self._context(context)
        del found.log[found.marks[mark] :]

    def rebuild(self, context: int, messages: tuple[content.Message, ...]) -> None:
        self._context(context).log.clear()
        for message in messages:
            self.append_message(context, message)

    def respond(
        self,
        context: int,
        response: int,
        options: content.ReplyOptions,
        *,
        speculative: bool = False,
    ) -> None:
        found = self._context(context)
        if options.max_tokens == 0:
            raise RequestError("max_tokens is 0")
        self.replies[response] = ScriptedReply(
            context=context,
            text=" ".join(found.log),
            num_frames=int(found.script.get("frames", "3")),
            held=[] if speculative else None,
        )

    def confirm(self, response: int) -> None:
        reply = self.replies.get(response)
        if reply is not None and reply.held is not None:
            self.outbox += reply.held
            reply.held = None

    def cancel(self, response: int) -> None:
        if reply := self.replies.get(response):
            self._end(response, "cancelled")
            reply.held = None

    def heard(self, response: int, num_samples: int) -> str:
        if response not in self.replies:
            raise RequestError(f"response {response} is unknown")
        self._end(response, "cancelled")
        return self.replies[response].text[: num_samples // FRAME_SAMPLES]

    @property
    def has_work(self) -> bool:
        return bool(self.outbox) or any(r.status is None for r in self.replies.values())

    def step(self) -> list[content.EngineEvent]:
        for response, reply in self.replies.items():
            if reply.status is None:
                self._make_frame(response, reply)
                break
        events, self.outbox = self.outbox, []
        return events

    def _make_frame(self, response: int, reply: ScriptedReply) -> None:
        self.num_steps += 1
        context = self.contexts[reply.context]
        if "crash-step" in context.log:
            raise ZeroDivisionError("a bug in a step")
        if "oom-step" in context.log:
            raise MemoryError("no room for a step")
        time.sleep(float(context.script.get("step_ms", "0")) / 1000)
        if reply.num_made == 0:
            self._emit(reply, content.TextEvent(response=response, text=reply.text, ids=(1, 2)))
        reply.num_made += 1
        pcm = np.full(FRAME_SAMPLES, reply.num_made, np.int16)
        spoken = reply.num_made * len(reply.text) // reply.num_frames
        self._emit(
            reply,
            content.AudioEvent(response=response, codes=(0,) * 16, pcm=pcm, spoken_chars=spoken),
        )
        if reply.num_made == reply.num_frames:
            self._end(response, "completed")

    def _end(self, response: int, status: content.EndStatus) -> None:
        reply = self.replies[response]
        if reply.status is None:
            reply.status = status
            usage = content.Usage(output_audio_tokens=reply.num_made)
            self._emit(reply, content.EndEvent(response=response, status=status, usage=usage))

    def _emit(self, reply: ScriptedReply, event: content.EngineEvent) -> None:
        (self.outbox if reply.held is None else reply.held).append(event)

    def _context(self, context: int) -> ScriptedContext:
        if context not in self.contexts:
            raise RequestError(f"context {context} is unknown")
        return self.contexts[context]


def _script(instructions: str) -> dict[str, str]:
    return dict(word.split("=") for word in instructions.split())


def make_core() -> ScriptedCore:
    print("a line on stdout")
    return ScriptedCore()


def no_checkpoint() -> ScriptedCore:
    raise CheckpointError("there is no checkpoint\nin this folder")


def dies_while_loading() -> ScriptedCore:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")
