"""The engine's side of the port: owns the device on one thread, translates messages into its calls.

The only file outside `models/` that imports it. Everything heavy is imported by `load_core`, so
that importing this file stays cheap for the parent. Run as `python -m pipeline.worker` it is the
child process of `pipeline.channels.ProcessChannel`.

One law beside those of `pipeline.messages`: every `Respond` is answered by exactly one
`ResponseEnded`, whatever goes wrong, and nothing of that response follows it. What goes wrong ends
the smallest thing that can be told: a refused call -> `ContextFault`, a context without memory or
with a bug in one of its calls -> that context is freed (`is_lost`), all else -> `EngineFailed`.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never, cast

import numpy as np

from models import content
from models.errors import CheckpointError, ModelError, OverloadedError
from pipeline import child, messages
from pipeline.call_queue import CallQueue
from pipeline.engine_errors import is_out_of_memory, one_line
from pipeline.messages import Answer, Call, ContextFault, EngineFailed, EngineReady, ResponseStatus
from pipeline.watchdog import Watchdog
from pipeline.worker_options import WorkerOptions as WorkerOptions

if TYPE_CHECKING:
    from models.engine import Engine, EngineOptions

logger = logging.getLogger("pipeline.worker")  # also when run as __main__

AnswerSink = Callable[[Answer], None]


def run(
    options: WorkerOptions,
    calls: CallQueue,
    answer: AnswerSink,
    watchdog: Watchdog | None = None,
) -> EngineFailed | None:
    """Load an engine and serve calls until the queue is closed (None) or it can not go on."""
    try:
        core = load_core(options)
    except Exception as error:
        if not isinstance(error, ModelError):
            logger.exception("loading the engine failed")
        return EngineFailed(error=one_line(error), can_retry=False)
    try:
        answer(_introduce(core, options))
        EngineLoop(core, answer, watchdog).run(calls)
    except Exception as error:
        logger.exception("the engine failed")
        return EngineFailed(error=f"the engine failed: {one_line(error)}")
    return None


def load_core(options: WorkerOptions) -> Engine:
    """The engine that the options describe.

    Raises:
        CheckpointError, ResourceError: it can not be loaded; the message says why on one line.
    """
    if options.core is not None:
        return _scripted_core(options.core)
    import torch

    from models.engine import Engine, Placement

    torch.set_num_threads(options.num_threads)
    folder = checkpoint_folder(options.model, Path(options.cache_folder))
    placement = Placement(
        device=options.device,
        dtype=options.dtype,
        experts=options.experts,
        devices=options.devices,
    )
    engine = Engine.load(folder, placement, engine_options(options))
    engine.warm_up()
    return engine


def engine_options(options: WorkerOptions) -> EngineOptions:
    """What `options` say about the engine itself."""
    from models.encoding import WindowPolicy
    from models.engine_options import GRAPHS, EngineOptions

    return EngineOptions(
        by_steps=GRAPHS[options.graphs],
        windows=WindowPolicy(
            audio_window_s=options.audio_window_s or None,
            camera_window_s=options.camera_window_s or None,
        ),
    )


def checkpoint_folder(model: str, cache_folder: Path) -> Path:
    """Where the files of `model` lie; makes the tiny checkpoint, downloads one that has a hub id.

    Raises:
        CheckpointError, ResourceError: there is no such checkpoint, or no room for it.
    """
    if model == "tiny":
        return _tiny_folder(cache_folder / "tiny")
    from models.hub import resolve_checkpoint

    return resolve_checkpoint(model)


def _tiny_folder(folder: Path) -> Path:
    """The checkpoint appears whole or not at all; two processes may want it at once."""
    if not (folder / "config.json").exists():
        from models.tiny import write_tiny_checkpoint

        try:
            write_tiny_checkpoint(folder)
        except CheckpointError:
            if not (folder / "config.json").exists():  # else: the other process was faster
                raise
    return folder


def _scripted_core(place: str) -> Engine:
    path, _, factory = place.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None, place
    assert spec.loader is not None, place
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return cast("Engine", getattr(module, factory)())


def _introduce(core: Engine, options: WorkerOptions) -> EngineReady:
    return EngineReady(
        checkpoint=options.model,
        voices=core.voices,
        device=core.device,
        dtype=core.dtype,
        is_babbling=core.is_babbling,
        max_context_tokens=core.max_context_tokens,
        reads_words=core.reads_words,
    )


# ------------------------------------------------------------------------------- serving
@dataclass(slots=True)
class _Reply:
    context: int
    is_ended: bool = False


class EngineLoop:
    """Takes in all waiting calls, lets the engine do one unit of work, and so on. One thread."""

    def __init__(self, core: Engine, answer: AnswerSink, watchdog: Watchdog | None = None) -> None:
        self._core = core
        self._watchdog = watchdog
        self._answer = answer
        self._replies: dict[int, _Reply] = {}
        self._contexts: set[int] = set()
        self._lost: dict[int, ModelError] = {}  # contexts, until their owner closes them
        self._stopped: list[int] = []

    def run(self, calls: CallQueue) -> None:
        """Until the queue is closed. Raises whatever leaves the engine in an unknown state."""
        while (waiting := self._take(calls)) is not None:
            for call in waiting:
                self._carry_out(call)
            if self._core.has_work:
                self._step()
            for response in self._stopped:  # a held back reply may end without an event
                self._end(response, "cancelled")
            self._stopped.clear()

    def _take(self, calls: CallQueue) -> list[Call] | None:
        is_idle = not self._core.has_work
        if self._watchdog is not None and is_idle:
            self._watchdog.rest()
        waiting = calls.take_all(wait=is_idle)
        if self._watchdog is not None:
            self._watchdog.alive()
        return waiting

    def _step(self) -> None:
        shortage = None
        try:
            for event in self._core.step():
                self._report(event)
        except Exception as error:
            if not is_out_of_memory(error) or not self._contexts:
                raise
            shortage = one_line(error)
        if shortage is not None:  # here the traceback no longer holds the tensors of that step
            self._lose(self._newest_context(), OverloadedError(f"out of memory: {shortage}"))

    def _newest_context(self) -> int:
        """Of those that are being answered, if any: the one to shed."""
        speaking = {reply.context for reply in self._replies.values() if not reply.is_ended}
        return max(speaking or self._contexts)

    def _carry_out(self, call: Call) -> None:
        context = self._context_of(call)
        if isinstance(call, messages.Respond):
            self._replies[call.response] = _Reply(call.context)
        if context in self._lost:
            self._refuse(call, self._lost[context], is_known=True)
            return
        mistake = None
        try:
            self._apply(call)
        except ModelError as error:
            self._refuse(call, error.with_traceback(None))  # which holds tensors
        except Exception as error:
            logger.exception("%s failed", type(call).__name__)
            if context is None:
                raise
            mistake = one_line(error)
        if mistake is not None and context is not None:
            self._lose(context, ModelError(f"{type(call).__name__} failed: {mistake}"))

    def _context_of(self, call: Call) -> int | None:
        if isinstance(call, messages.Confirm | messages.Cancel | messages.Heard):
            reply = self._replies.get(call.response)
            return reply.context if reply else None
        return call.context

    def _apply(self, call: Call) -> None:
        core = self._core
        match call:
            case messages.Open():
                core.open(call.context, **_preface(call))
                self._contexts.add(call.context)
            case messages.Configure():
                core.configure(call.context, **_preface(call))
            case messages.AppendMessage():
                core.append_message(call.context, _message(call.message))
            case messages.BeginSpeech():
                core.begin_speech(call.context, has_camera=call.has_camera)
            case messages.AppendAudio():
                core.append_audio(call.context, call.pcm)
            case messages.AppendFrame():
                core.append_frame(call.context, call.frame.rgb, time_s=call.frame.time_s)
            case messages.EndSpeech():
                core.end_speech(call.context)
            case messages.SetMark():
                core.set_mark(call.context, call.mark)
            case messages.Rollback():
                core.rollback(call.context, call.mark)
            case messages.Rebuild():
                core.rebuild(call.context, tuple(_message(part) for part in call.messages))
            case messages.Respond():
                options = content.ReplyOptions(**asdict(call.options))
                core.respond(call.context, call.response, options, speculative=call.speculative)
            case messages.Confirm():
                core.confirm(call.response)
            case messages.Cancel():
                core.cancel(call.response)
                self._stopped.append(call.response)
            case messages.Heard():
                text = core.heard(call.response, call.num_samples)
                self._stopped.append(call.response)
                self._answer(messages.HeardText(response=call.response, text=text))
            case messages.Overhear():
                core.overhear(call.context, call.query, call.pcm)
            case messages.Close():
                core.close(call.context)
                self._forget(call.context)
            case _:
                assert_never(call)

    def _refuse(self, call: Call, error: ModelError, *, is_known: bool = False) -> None:
        """Answer a call that was not carried out. `is_known`: its context's fault has been told."""
        match call:
            case messages.Respond():
                self._end(call.response, "failed", error)
            case messages.Heard():  # nothing of such a reply is in the log
                self._answer(messages.HeardText(response=call.response, text=""))
            case messages.Confirm() | messages.Cancel():
                pass
            case messages.Close():
                self._forget(call.context)
            case _:
                is_lost = isinstance(call, messages.Open) and call.context not in self._contexts
                if is_lost:
                    self._lost[call.context] = error
                if not is_known:
                    can_retry = is_lost and error.refusal == "overloaded"
                    self._tell_fault(call.context, error, is_lost=can_retry)

    def _lose(self, context: int, error: ModelError) -> None:
        """Free a context that can not go on, and tell its owner."""
        logger.error("context %d is lost: %s", context, error)
        self._core.close(context)
        for response, reply in self._replies.items():
            if reply.context == context:
                self._end(response, "failed", error)
        self._contexts.discard(context)
        self._lost[context] = error
        self._tell_fault(context, error, is_lost=True)

    def _tell_fault(self, context: int, error: ModelError, *, is_lost: bool) -> None:
        fault = ContextFault(
            context=context, error=one_line(error), is_lost=is_lost, refusal=error.refusal
        )
        self._answer(fault)

    def _forget(self, context: int) -> None:
        self._contexts.discard(context)
        self._lost.pop(context, None)
        for response in [r for r, reply in self._replies.items() if reply.context == context]:
            self._end(response, "cancelled")
            del self._replies[response]

    def _end(self, response: int, status: ResponseStatus, error: ModelError | None = None) -> None:
        """End a reply whose end the engine has not told."""
        self._tell_end(
            messages.ResponseEnded(
                response=response,
                status=status,
                usage=messages.Usage(),
                stages=messages.Stages(),
                error=one_line(error) if error else None,
                refusal=error.refusal if error else None,
            )
        )

    def _tell_end(self, ended: messages.ResponseEnded) -> None:
        reply = self._replies.get(ended.response)
        if reply is not None and not reply.is_ended:
            reply.is_ended = True
            self._answer(ended)

    def _report(self, event: content.EngineEvent) -> None:
        match event:
            case content.TextEvent(text=""):
                pass
            case content.TextEvent() | content.AudioEvent() | content.CallEvent():
                reply = self._replies.get(event.response)
                if reply is not None and not reply.is_ended:
                    self._answer(_delta(event))
            case content.EndEvent():
                self._tell_end(_response_ended(event))
            case content.ReadingEvent(context=context, query=query):
                reading = messages.Reading(**asdict(event.reading))
                self._answer(messages.Overheard(context=context, query=query, reading=reading))
            case content.FaultEvent():
                if event.context in self._contexts:
                    self._answer(ContextFault(context=event.context, error=event.error))
            case _:
                assert_never(event)


# ------------------------------------------------------------------------------- translation
def _message(message: messages.Message) -> content.Message:
    return content.Message(role=message.role, parts=tuple(_part(part) for part in message.parts))


def _part(part: messages.Part) -> content.Part:
    match part:
        case messages.TextPart():
            return content.Text(text=part.text)
        case messages.ImagePart():
            return content.Image(rgb=part.rgb)
        case messages.AudioPart():
            frames = tuple((frame.time_s, frame.rgb) for frame in part.frames)
            return content.Audio(pcm=part.pcm, frames=frames)
        case messages.ToolCallPart():
            return content.ToolCall(name=part.name, arguments=part.arguments)
        case messages.ToolResultPart():
            return content.ToolResult(output=part.output)
        case _:
            assert_never(part)


def _preface(call: messages.Open | messages.Configure) -> dict[str, Any]:
    tools = [json.loads(tool) for tool in call.tools]
    return {"instructions": call.instructions, "voice": call.voice, "tools": tools}


def _delta(
    event: content.TextEvent | content.AudioEvent | content.CallEvent,
) -> messages.TextDelta | messages.AudioDelta | messages.ToolCallDelta:
    match event:
        case content.TextEvent():
            return messages.TextDelta(response=event.response, text=event.text)
        case content.AudioEvent(response=response, spoken_chars=chars):
            pcm = np.ascontiguousarray(event.pcm, dtype=np.int16)
            return messages.AudioDelta(response=response, pcm=pcm, spoken_chars=chars)
        case content.CallEvent():
            return messages.ToolCallDelta(**asdict(event))


def _response_ended(event: content.EndEvent) -> messages.ResponseEnded:
    usage, stages = messages.Usage(**asdict(event.usage)), messages.Stages(**asdict(event.stages))
    return messages.ResponseEnded(**{**asdict(event), "usage": usage, "stages": stages})


def main(arguments: list[str]) -> None:
    """`python -m pipeline.worker FD PARENT_PID OPTIONS_AS_JSON`, started by `ProcessChannel`."""
    socket_fd, parent_pid, options_json = arguments
    options = WorkerOptions(**json.loads(options_json))
    child.prepare(parent_pid=int(parent_pid), num_threads=options.num_threads)
    watchdog = Watchdog(options.stuck_after_s) if options.stuck_after_s > 0 else None
    child.serve(int(socket_fd), lambda calls, answer: run(options, calls, answer, watchdog))


if __name__ == "__main__":
    main(sys.argv[1:])
