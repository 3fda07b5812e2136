"""The engine: the only class of `models` that others use.

(skeleton: the signatures are the contract between `models` and `pipeline.worker`)

Holds many contexts (token logs with their caches) and makes replies, one small unit of work at a time, so that the
owner's thread can take in calls between two units. Knows no asyncio, no sockets and no sessions' transport.
Not thread safe: one thread owns it. Calls return at once; device work happens in `step`.
"""

from __future__ import annotations

from pathlib import Path

from models.content import EngineEvent, Message, Pcm, ReplyOptions, Rgb


class Engine:
    """See the module's docstring. Calls raise `models.errors.RequestError` for values that can not be served."""

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", dtype: str = "auto") -> Engine:
        """Load a checkpoint folder.

        Raises:
            CheckpointError, ResourceError: it can not be loaded; the message says why on one line.
        """
        raise NotImplementedError

    @property
    def voices(self) -> tuple[str, ...]: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def is_babbling(self) -> bool:
        """Whether the checkpoint is a random one (made by `omnid checkpoint tiny`)."""
    @property
    def max_context_tokens(self) -> int: ...

    def open(self, context: int, *, instructions: str, voice: str | None) -> None: ...
    def configure(self, context: int, *, instructions: str, voice: str | None) -> None: ...
    def append_message(self, context: int, message: Message) -> None: ...
    def begin_speech(self, context: int, *, has_camera: bool) -> None: ...
    def append_audio(self, context: int, pcm: Pcm) -> None: ...
    def append_frame(self, context: int, rgb: Rgb, *, time_s: float) -> None: ...
    def end_speech(self, context: int) -> None: ...
    def set_mark(self, context: int, mark: int) -> None: ...
    def rollback(self, context: int, mark: int) -> None: ...
    def rebuild(self, context: int, messages: tuple[Message, ...]) -> None: ...
    def respond(self, context: int, response: int, options: ReplyOptions, *, speculative: bool = False) -> None: ...
    def confirm(self, response: int) -> None: ...
    def cancel(self, response: int) -> None: ...
    def heard(self, response: int, num_samples: int) -> str:
        """Cut the log to what was spoken by then; returns the reply's text that stays."""
        raise NotImplementedError
    def close(self, context: int) -> None: ...

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something now."""
        raise NotImplementedError
    def step(self) -> list[EngineEvent]:
        """Do the most urgent unit of work (a few ms); returns what became known, in order."""
        raise NotImplementedError
