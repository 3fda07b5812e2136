"""The engine as a session sees it: an async protocol of plain messages (see `pipeline.messages`).

Every call but `Engine.ready` returns at once and is never blocked by the device; what an engine has
to say comes back through `Response`. An engine that dies ends its responses as "failed" and its
contexts are no longer `is_alive`, and so it is with a context that it refuses: the caller opens a
new one and hands it the conversation with `rebuild`. Implemented by
`pipeline.engine_client.EngineClient` (over a thread or a child process) and by scripted fakes in
tests.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator
from typing import Protocol

from pipeline.messages import (
    EngineReady,
    Frame,
    Message,
    Pcm,
    Reading,
    Refusal,
    ResponseEvent,
    ResponseOptions,
)


class Mark(Protocol):
    """An opaque position in the log of appends of one context."""


class Response(Protocol):
    """One reply under way. Iterating ends after `ResponseEnded`; leaving the iteration early does
    not cancel.
    """

    def __aiter__(self) -> AsyncIterator[ResponseEvent]: ...

    def confirm(self) -> None:
        """Release a speculative reply. Idempotent."""

    def cancel(self) -> None:
        """Stop at once, leave no work behind; `ResponseEnded("cancelled")` follows. Idempotent."""

    async def heard(self, num_samples: int) -> str:
        """Cut the log to what `num_samples` (24 kHz) had spoken; return the reply's text that
        stays.

        Legal during, after or without `cancel`. A cancelled reply of which nothing is said keeps
        nothing.

        Raises:
            pipeline.errors.EngineLostError: the context is dead, or the engine does not answer in
                time.
        """


class Context(Protocol):
    """One conversation's token log inside an engine."""

    @property
    def is_alive(self) -> bool:
        """False once the engine has it no more, or has refused it; every other call is then
        ignored.
        """

    @property
    def refusal(self) -> Refusal | None:
        """Why an engine that lives has it no more; None where it has it, or does not say."""

    def configure(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> None: ...

    def append_message(self, message: Message) -> None: ...

    def begin_speech(self, *, has_camera: bool) -> None: ...

    def append_audio(self, pcm: Pcm) -> None: ...

    def append_frame(self, frame: Frame) -> None: ...

    def end_speech(self) -> None: ...

    def overhear(self, pcm: Pcm) -> Future[Reading] | None:
        """Ask for the words of sound that is not to be in the log; None where the engine reads
        none. May stay without an answer: the next question cancels it, an engine may die.
        """

    def mark(self) -> Mark: ...

    def rollback(self, mark: Mark) -> None: ...

    def rebuild(self, messages: tuple[Message, ...]) -> None: ...

    def respond(self, options: ResponseOptions, *, speculative: bool = False) -> Response: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """An engine that can hold many contexts."""

    async def ready(self) -> EngineReady:
        """Wait until the model is loaded.

        Raises:
            pipeline.errors.EngineLostError: loading failed (the message says why) or the engine is
                gone for good.
        """

    def open(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> Context: ...
