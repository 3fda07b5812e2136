"""A scripted engine behind `pipeline.engine_port`.

Says what it is told to, records every call, can die.

It keeps each context's log as a list of entries the way a real engine does, and refuses what a
real one refuses (an append while speech is open, a reply while one is active), so that a session
which orders its calls wrongly fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import EngineLostError
from pipeline.messages import (
    AudioDelta,
    EngineReady,
    Frame,
    ImagePart,
    Message,
    Part,
    Pcm,
    Reading,
    Refusal,
    ResponseEnded,
    ResponseEvent,
    ResponseOptions,
    Stages,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallPart,
    ToolResultPart,
    Usage,
)

FRAME_SAMPLES = 1920


@dataclass
class Script:
    """What the next reply says: a word and a frame at a time, `step_s` apart.

    Then it calls tools: (name, arguments), the arguments in pieces of four characters.
    `holds_at`: after so many frames it waits for `FakeResponse.go_on`; `status`: how it ends.
    """

    words: tuple[str, ...] = ("One", " two", " three", " four")
    num_frames: int = 8
    calls: tuple[tuple[str, str], ...] = ()
    step_s: float = 0.0
    holds_at: int | None = None
    status: str = "completed"
    error: str | None = None
    refusal: Refusal | None = None
    usage: Usage | None = None


@dataclass
class Speech:
    """Speech in a context's log."""

    has_camera: bool
    chunks: list[Pcm] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    is_closed: bool = False

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.chunks))

    @property
    def pcm(self) -> Pcm:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.float32)


class FakeResponse:
    def __init__(
        self,
        context: FakeContext,
        number: int,
        options: ResponseOptions,
        script: Script,
        *,
        speculative: bool = False,
    ):
        self.context = context
        self.number = number
        self.options = options
        self.tools = context.tools
        self.script = script
        self.said = ""
        self.num_frames = 0
        self.kept = ""
        self.is_ended = False
        self.is_cancelled = False
        self.heard_calls: list[int] = []
        self._go = asyncio.Event()
        self._stop = asyncio.Event()
        self.is_speculative = speculative
        self._sure = asyncio.Event()
        if not speculative:
            self._sure.set()

    def go_on(self) -> None:
        self._go.set()

    def confirm(self) -> None:
        self.context.calls.append("confirm")
        self._sure.set()

    def cancel(self) -> None:
        self.context.calls.append("cancel")
        self.is_cancelled = True
        self._finish()

    def _finish(self) -> None:
        self.is_ended = True
        self._stop.set()
        if self.context.active is self:
            self.context.active = None

    async def heard(self, num_samples: int) -> str:
        if not self.context.is_alive:
            raise EngineLostError("the engine is gone")
        self.context.calls.append("heard")
        self.heard_calls.append(num_samples)
        self._finish()
        await asyncio.sleep(0)
        total = self.num_frames * FRAME_SAMPLES
        if num_samples >= total and not self.is_cancelled:
            self.kept = self.said
        else:
            self.kept = self.said[: self.spoken(num_samples // FRAME_SAMPLES)]
        return self.kept

    def spoken(self, num_frames: int) -> int:
        """Characters spoken by the end of a frame: whole words, spread evenly over the frames."""
        count = num_frames * len(self.script.words) // max(1, self.script.num_frames)
        return min(len(self.said), len("".join(self.script.words[:count])))

    async def __aiter__(self) -> AsyncIterator[ResponseEvent]:
        script = self.script
        steps = max(len(script.words), script.num_frames)
        if not self._sure.is_set():
            await self._wait(self._sure)
        for step in range(steps):
            if step == script.holds_at:
                await self._wait(self._go)
            if script.step_s:
                await asyncio.sleep(script.step_s)
            if self.is_ended or not self.context.is_alive:
                break
            if step < len(script.words):
                self.said += script.words[step]
                yield TextDelta(response=self.number, text=script.words[step])
            if self.options.audio and step < script.num_frames:
                self.num_frames += 1
                yield AudioDelta(
                    response=self.number,
                    pcm=np.full(FRAME_SAMPLES, step + 1, np.int16),
                    spoken_chars=self.spoken(self.num_frames),
                )
        for index, (name, arguments) in enumerate(script.calls):
            for start in range(0, len(arguments), 4):
                if self.is_ended or not self.context.is_alive:
                    break
                if script.holds_at == steps + start:
                    await self._wait(self._go)
                yield ToolCallDelta(
                    response=self.number,
                    index=index,
                    name=name,
                    arguments=arguments[start : start + 4],
                    is_done=start + 4 >= len(arguments),
                )
        yield self._ended()

    async def _wait(self, event: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(e.wait()) for e in (event, self._stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _ended(self) -> ResponseEnded:
        status, error = self.script.status, self.script.error
        refusal = self.script.refusal
        if self.context.refusal is not None:
            status, error, refusal = "failed", "the engine is at its limit", self.context.refusal
        elif not self.context.is_alive:
            status, error = "failed", "the engine died"
        elif self.is_ended:
            status = "cancelled"
        else:
            self.kept = self.said
        self._finish()
        return ResponseEnded(
            response=self.number,
            status=status,
            usage=self.script.usage
            or Usage(
                input_text_tokens=7,
                output_text_tokens=len(self.script.words),
                output_audio_tokens=4 if self.is_speculative else 0,
            ),
            stages=Stages(first_pcm=12.0, tokens_left=3),
            error=error,
            refusal=refusal,
        )


class FakeContext:
    def __init__(
        self,
        engine: FakeEngine,
        *,
        instructions: str,
        voice: str | None,
        tools: tuple[str, ...] = (),
    ):
        self.tools = tools
        self.engine = engine
        self.instructions = instructions
        self.voice = voice
        self.is_alive = True
        self.refusal: Refusal | None = None
        self.is_closed = False
        self.calls: list[str] = []
        self.reading: Reading | None = None  # of whatever is overheard; None: it reads no words
        self.is_slow_reader = False
        self.overheard: list[int] = []  # samples of each sound
        self.entries: list[Message | Speech | FakeResponse] = []
        self.active: FakeResponse | None = None

    @property
    def open_speech(self) -> Speech | None:
        last = self.entries[-1] if self.entries else None
        return last if isinstance(last, Speech) and not last.is_closed else None

    def _note(self, call: str) -> bool:
        if self.is_alive:
            self.calls.append(call)
        return self.is_alive

    def configure(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> None:
        if self._note("configure"):
            self.instructions, self.voice, self.tools = instructions, voice, tools

    def append_message(self, message: Message) -> None:
        if self._note("append_message"):
            assert self.open_speech is None, "speech is still open"
            self.entries.append(message)

    def begin_speech(self, *, has_camera: bool) -> None:
        if self._note("begin_speech"):
            assert self.open_speech is None, "speech is still open"
            self.entries.append(Speech(has_camera=has_camera))

    def append_audio(self, pcm: Pcm) -> None:
        if self._note("append_audio"):
            assert self.open_speech is not None
            assert pcm.dtype == np.float32
            assert np.isfinite(pcm).all()
            self.open_speech.chunks.append(pcm)

    def append_frame(self, frame: Frame) -> None:
        if self._note("append_frame"):
            speech = self.open_speech
            assert speech is not None
            assert speech.has_camera
            assert speech.num_samples >= frame.time_s * 16_000 - 1e-6, "a frame before its sound"
            speech.frames.append(frame)

    def end_speech(self) -> None:
        if self._note("end_speech"):
            assert self.open_speech is not None
            self.open_speech.is_closed = True

    def overhear(self, pcm: Pcm) -> asyncio.Future[Reading] | None:
        """What the test has put in `reading`, at once; it is asked for what the sound says."""
        self.overheard.append(len(pcm))
        if self.reading is None:
            return None
        answer: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
        if not self.is_slow_reader:
            answer.set_result(self.reading)
        return answer

    def mark(self) -> tuple[int, int, int]:
        self._note("mark")
        speech = self.open_speech
        inside = (len(speech.chunks), len(speech.frames)) if speech is not None else (-1, -1)
        return (len(self.entries), *inside)

    def rollback(self, mark: tuple[int, int, int]) -> None:
        if self._note("rollback"):
            num_entries, num_chunks, num_frames = mark
            assert num_entries <= len(self.entries)
            assert self.active not in self.entries[num_entries:], "a reply there is active"
            del self.entries[num_entries:]
            if num_chunks >= 0:
                speech = self.entries[-1]
                assert isinstance(speech, Speech)
                del speech.chunks[num_chunks:], speech.frames[num_frames:]
                speech.is_closed = False

    def rebuild(self, messages: tuple[Message, ...]) -> None:
        if self._note("rebuild"):
            assert self.active is None, "a rebuild would kill the running reply"
            self.entries = list(messages)

    def respond(self, options: ResponseOptions, *, speculative: bool = False) -> FakeResponse:
        self._note("respond")
        assert self.active is None, "a reply is active"
        assert self.open_speech is None, "speech is still open"
        self.active = FakeResponse(
            self,
            self.engine.next_number(),
            options,
            self.engine.script,
            speculative=speculative,
        )
        self.entries.append(self.active)
        self.engine.responses.append(self.active)
        return self.active

    def refuse(self) -> None:
        """The engine answers that it does not take it: others are served late already."""
        self.is_alive, self.refusal = False, "overloaded"
        if self.active is not None:
            self.active._stop.set()

    def close(self) -> None:
        self.is_closed = True
        self.is_alive = False

    @property
    def story(self) -> list[str]:
        """The log for people: `user: hi`, `user: <1.02 s>`, `user.

        <1.02 s, 3 frames>`, `assistant: One two`.
        """
        lines = [line_of(entry) for entry in self.entries]
        return [line for line in lines if line != "assistant: "]


class FakeEngine:
    """Contexts live until `die`; a new one can be opened once `revive` was called (or at once).

    While it `is_full` it refuses new ones, as a real one does: when the caller has gone on.
    """

    def __init__(self, script: Script | None = None):
        self.script = script or Script()
        self.contexts: list[FakeContext] = []
        self.responses: list[FakeResponse] = []
        self.failure: str | None = None
        self.is_full = False
        self._is_up = asyncio.Event()
        self._is_up.set()
        self._count = 0

    def next_number(self) -> int:
        self._count += 1
        return self._count

    @property
    def context(self) -> FakeContext:
        return self.contexts[-1]

    @property
    def response(self) -> FakeResponse:
        return self.responses[-1]

    def die(self, *, revives: bool = True) -> None:
        for context in self.contexts:
            context.is_alive = False
        for response in self.responses:
            response._stop.set()
        if not revives:
            self._is_up.clear()

    def revive(self, failure: str | None = None) -> None:
        self.failure = failure
        self._is_up.set()

    async def ready(self) -> EngineReady:
        await self._is_up.wait()
        if self.failure:
            raise EngineLostError(self.failure)
        return EngineReady(
            checkpoint="fake",
            voices=("v",),
            device="cpu",
            dtype="float32",
            is_babbling=True,
            max_context_tokens=1000,
        )

    def open(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> FakeContext:
        self.contexts.append(FakeContext(self, instructions=instructions, voice=voice, tools=tools))
        if self.is_full:
            asyncio.get_running_loop().call_soon(self.context.refuse)
        return self.contexts[-1]


def line_of(entry: Message | Speech | FakeResponse) -> str:
    if isinstance(entry, Speech):
        return f"user: {_sound(entry.num_samples, len(entry.frames))}"
    if isinstance(entry, FakeResponse):
        return f"assistant: {entry.kept}"
    return f"{entry.role}: {' '.join(map(_part, entry.parts))}"


def _part(part: Part) -> str:
    if isinstance(part, ToolCallPart):
        return f"{part.name}({part.arguments})"
    if isinstance(part, ToolResultPart):
        return f"-> {part.output}"
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, ImagePart):
        return f"<picture {part.rgb.shape[1]}x{part.rgb.shape[0]}>"
    return _sound(len(part.pcm), len(part.frames))


def _sound(num_samples: int, num_frames: int) -> str:
    frames = f", {num_frames} frames" if num_frames else ""
    return f"<{num_samples / 16_000:.3f} s{frames}>"
