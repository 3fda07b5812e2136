"""An engine with known delays behind `pipeline.engine_port`: what it says, and when, is exact.

It speaks synthesised replies whose word times are known, a frame of 80 ms at a time, faster than
real time by a known factor, on whatever clock it is given. It notes which camera frame was the
newest when a reply was asked for, and what its log holds of each reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.bench.ear import Ear
from pipeline.clock import Clock
from pipeline.messages import (
    ENGINE_INPUT_HZ,
    ENGINE_OUTPUT_HZ,
    AudioDelta,
    EngineReady,
    Frame,
    Message,
    Pcm,
    Pcm16,
    Reading,
    Refusal,
    ResponseEnded,
    ResponseEvent,
    ResponseOptions,
    Stages,
    TextDelta,
    Usage,
)
from pipeline.synthetic import voices
from pipeline.synthetic.voices import Voice

FRAME_SAMPLES = 1920
FRAME_S = FRAME_SAMPLES / ENGINE_OUTPUT_HZ
MAX_HELD_FRAMES = 4  # as an engine bounds what may be in vain
VOICE = Voice(program="flite", name="rms")
REPLIES = (
    "Well, there are several things to know about that, and the first of them is rather simple, "
    "as you will see.",
    "I have looked at it from every side, and I would say that the best way is to begin early "
    "and to take your time.",
    "That is a good question, and the answer depends on where you are, and on what you want to "
    "do next.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A reply: text, 24 kHz samples, and (samples, characters) at the end of each word."""

    text: str
    pcm: Pcm16
    word_ends: tuple[tuple[int, int], ...]

    def text_at(self, num_samples: int) -> str:
        """The words that have ended by then."""
        chars = max((c for end, c in self.word_ends if end <= num_samples), default=0)
        return self.text[:chars]


def spoken_replies() -> tuple[Spoken, ...]:
    """What a scripted engine says, in turn.

    Raises:
        SynthesisError: see `voices.say`.
    """
    return tuple(_spoken(text) for text in REPLIES)


def _spoken(text: str) -> Spoken:
    clip = voices.say(text, VOICE)
    assert clip.word_ends, "the words of a reply must be known"
    length = round(len(clip.pcm) * ENGINE_OUTPUT_HZ / ENGINE_INPUT_HZ)
    spectrum = np.zeros(length // 2 + 1, complex)
    own = np.fft.rfft(clip.pcm)
    spectrum[: len(own)] = own[: len(spectrum)]
    pcm = np.fft.irfft(spectrum, length) * (length / len(clip.pcm))
    pcm = pcm * 0.12 / np.sqrt(np.mean(pcm**2))
    ends, chars = [], 0
    for word, end in zip(text.split(), clip.word_ends, strict=True):
        chars = text.index(word, chars) + len(word)
        ends.append((end * ENGINE_OUTPUT_HZ // ENGINE_INPUT_HZ, chars))
    return Spoken(
        text=text,
        pcm=np.asarray(np.clip(pcm, -1, 1) * 32767, np.int16),
        word_ends=tuple(ends),
    )


@dataclass(eq=False)
class ScriptedResponse:
    """One reply. `kept`: what the log holds of it; `frame`: the newest camera frame it saw;
    `has_sounded`: whether any of it was told.
    """

    engine: ScriptedEngine
    context: ScriptedContext
    number: int
    spoken: Spoken
    is_speculative: bool
    frame: Frame | None
    started_s: float
    kept: str = ""
    is_cancelled: bool = False
    is_ended: bool = False
    has_sounded: bool = False
    _sure: asyncio.Event = field(default_factory=asyncio.Event)
    _confirmed_s: float = 0.0

    def confirm(self) -> None:
        """See `engine_port.Response`."""
        self._confirmed_s = self.engine.clock.now_s()
        self._sure.set()

    def cancel(self) -> None:
        """See `engine_port.Response`."""
        self.is_cancelled = True
        self._sure.set()
        self.context.finish(self)

    async def heard(self, num_samples: int) -> str:
        """See `engine_port.Response`. Exact: the times of the words are known."""
        self.kept = self.spoken.text_at(num_samples)
        return self.kept

    @property
    def num_frames(self) -> int:
        """Length in frames."""
        return -(-len(self.spoken.pcm) // FRAME_SAMPLES)

    def _made_by(self, frame: int) -> float:
        """When a frame is made: without a break, but for the bound of what is held."""
        engine = self.engine
        at_s = self.started_s + engine.first_audio_s + frame * engine.frame_s
        if self.is_speculative and frame >= MAX_HELD_FRAMES:
            behind = frame - MAX_HELD_FRAMES + 1
            at_s = max(at_s, self._confirmed_s + behind * engine.frame_s)
        return at_s

    async def __aiter__(self) -> AsyncIterator[ResponseEvent]:
        num_made = 0
        if self.is_speculative:
            await self._sure.wait()
        for number in range(self.num_frames):
            await self.engine.clock.sleep_until(self._made_by(number))
            if self.is_cancelled:
                break
            if number == 0:
                yield TextDelta(response=self.number, text=self.spoken.text)
            end = (number + 1) * FRAME_SAMPLES
            num_made += 1
            self.has_sounded = True
            yield AudioDelta(
                response=self.number,
                pcm=self.spoken.pcm[end - FRAME_SAMPLES : end],
                spoken_chars=len(self.spoken.text_at(end)),
            )
        if not self.is_cancelled:
            self.kept = self.spoken.text
        elif self.is_speculative and not num_made:
            waited = self.engine.clock.now_s() - self.started_s - self.engine.first_audio_s
            num_made = min(MAX_HELD_FRAMES, max(0, int(waited / self.engine.frame_s) + 1))
        self.context.finish(self)
        status = "cancelled" if self.is_cancelled else "completed"
        yield ResponseEnded(
            response=self.number,
            status=status,  # type: ignore[arg-type]
            usage=Usage(output_text_tokens=num_made, output_audio_tokens=num_made),
            stages=Stages(first_pcm=1000 * self.engine.first_audio_s),
        )


@dataclass(eq=False)
class ScriptedContext:
    """A log of which only the replies and the camera are remembered."""

    engine: ScriptedEngine
    is_alive: bool = True
    refusal: Refusal | None = None
    newest_frame: Frame | None = None
    active: ScriptedResponse | None = None

    def finish(self, response: ScriptedResponse) -> None:
        """The reply makes no more."""
        response.is_ended = True
        if self.active is response:
            self.active = None

    def configure(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> None:
        """See `engine_port.Context`."""

    def append_message(self, message: Message) -> None:
        """See `engine_port.Context`."""

    def begin_speech(self, *, has_camera: bool) -> None:
        """See `engine_port.Context`."""

    def append_audio(self, pcm: Pcm) -> None:
        """See `engine_port.Context`."""

    def append_frame(self, frame: Frame) -> None:
        """See `engine_port.Context`."""
        self.newest_frame = frame

    def end_speech(self) -> None:
        """See `engine_port.Context`."""

    def overhear(self, pcm: Pcm) -> asyncio.Future[Reading] | None:
        """See `engine_port.Context`. Heard at once, told after the engine's `reading_s`."""
        ear = self.engine.ear
        return None if ear is None else asyncio.ensure_future(self.engine.told(ear.read(pcm)))

    def mark(self) -> int:
        """See `engine_port.Context`."""
        return 0

    def rollback(self, mark: object) -> None:
        """See `engine_port.Context`."""

    def rebuild(self, messages: tuple[Message, ...]) -> None:
        """See `engine_port.Context`."""

    def respond(self, options: ResponseOptions, *, speculative: bool = False) -> ScriptedResponse:
        """See `engine_port.Context`."""
        assert self.active is None, "a reply is being made already"
        self.active = self.engine.new_response(self, is_speculative=speculative)
        return self.active

    def close(self) -> None:
        """See `engine_port.Context`."""
        self.is_alive = False


@dataclass(eq=False, kw_only=True)
class ScriptedEngine:
    """See the module's docstring. `first_audio_s`: from `respond` to the first frame; `frame_s`:
    between frames after it. `ear`: what reads words, `reading_s` behind the question.
    """

    clock: Clock
    replies: tuple[Spoken, ...]
    first_audio_s: float
    frame_s: float
    ear: Ear | None = None
    reading_s: float = 0.0
    responses: list[ScriptedResponse] = field(default_factory=list)

    async def ready(self) -> EngineReady:
        """See `engine_port.Engine`."""
        return EngineReady(
            checkpoint="scripted",
            voices=("rms",),
            device="cpu",
            dtype="none",
            is_babbling=False,
            max_context_tokens=1,
        )

    async def told(self, reading: Reading) -> Reading:
        """What was read, when it is known."""
        await self.clock.sleep_until(self.clock.now_s() + self.reading_s)
        return reading

    def open(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> ScriptedContext:
        """See `engine_port.Engine`."""
        return ScriptedContext(self)

    def new_response(self, context: ScriptedContext, *, is_speculative: bool) -> ScriptedResponse:
        """The next reply of the script."""
        response = ScriptedResponse(
            engine=self,
            context=context,
            number=len(self.responses),
            spoken=self.replies[len(self.responses) % len(self.replies)],
            is_speculative=is_speculative,
            frame=context.newest_frame,
            started_s=self.clock.now_s(),
        )
        self.responses.append(response)
        return response
