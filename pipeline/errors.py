"""The errors of `pipeline`, one class per remedy.

PipelineError
├── EngineLostError    the engine died or could not be loaded: wait for the restart, rebuild the
context └── BadInputError      the caller's value is wrong; `param` names it, `code` is a stable
word for programs
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all expected failures of this package."""

    exit_code = 1


class EngineLostError(PipelineError):
    """The engine is gone; the message says why, on one line."""


class BadInputError(PipelineError):
    """A request of the session's owner can not be carried out; the session goes on unchanged."""

    def __init__(
        self, message: str, *, code: str = "invalid_value", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
