"""The errors of `models`, one class per remedy.

    ModelError
    ├── CheckpointError    the files are wrong or incomplete: choose or repair the checkpoint
    ├── ResourceError      not enough memory, disk or context: free some, or choose a smaller model
    │   ├── ContextFullError   a conversation is longer than the model can hold: shorten it
    │   └── OverloadedError    those who speak are served late already: come back later
    ├── RequestError       the caller asked for something that can not be: mend the request
    └── ToolCallError      the model wrote a tool call that is none: ask again

`exit_code` is what the `omnid` command ends with after printing the message on one line; `refusal`
is what a program that asked for a reply learns of it (None: the engine is to blame).
"""

from __future__ import annotations

from typing import Literal

Refusal = Literal["request", "context_full", "overloaded", "tool_call"]


class ModelError(Exception):
    """Base of all expected failures of this package."""

    exit_code = 1
    refusal: Refusal | None = None


class CheckpointError(ModelError):
    """A checkpoint folder is missing, damaged, or does not fit its own config."""


class ResourceError(ModelError):
    """The machine lacks memory, disk or a device for what was asked."""

    refusal: Refusal | None = "request"


class ContextFullError(ResourceError):
    """A conversation has more tokens than one context of the model can hold."""

    refusal: Refusal | None = "context_full"


class OverloadedError(ResourceError):
    """There are more sessions than can be spoken to in time."""

    refusal: Refusal | None = "overloaded"


class RequestError(ModelError):
    """A call holds a value that the engine can not serve: unknown voice, empty audio, bad size."""

    refusal: Refusal | None = "request"


class ToolCallError(ModelError):
    """What a model wrote between the tokens of a tool call is no call."""

    refusal: Refusal | None = "tool_call"
