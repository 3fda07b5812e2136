"""The errors of `models`, one class per remedy.

    ModelError
    ├── CheckpointError    the files are wrong or incomplete: choose or repair the checkpoint
    ├── ResourceError      not enough memory, disk or context: free some, or choose a smaller model
    │   └── ContextFullError   a conversation is longer than the model can hold: shorten it
    └── RequestError       the caller asked for something that can not be: mend the request

`exit_code` is what the `omnid` command ends with after printing the message on one line.
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of all expected failures of this package."""

    exit_code = 1


class CheckpointError(ModelError):
    """A checkpoint folder is missing, damaged, or does not fit its own config."""


class ResourceError(ModelError):
    """The machine lacks memory, disk or a device for what was asked."""


class ContextFullError(ResourceError):
    """A conversation has more tokens than one context of the model can hold."""


class RequestError(ModelError):
    """A call holds a value that the engine can not serve: unknown voice, empty audio, bad size."""
