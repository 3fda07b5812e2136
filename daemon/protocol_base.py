"""What all wire models share: strictness for clients, exact shapes for servers, and errors by the
protocol's words.

Source: the Realtime protocol's published types and error codes. Standard library and pydantic only.
"""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails, PydanticCustomError

MAX_ECHOED_CHARS = 80

_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "greater_than_equal": "integer_below_min_value",
    "less_than_equal": "integer_above_max_value",
}

_MOVED = {
    "session.voice": "session.audio.output.voice",
    "session.modalities": "session.output_modalities",
    "session.input_audio_format": "session.audio.input.format",
    "session.output_audio_format": "session.audio.output.format",
    "session.input_audio_transcription": "session.audio.input.transcription",
    "session.input_audio_noise_reduction": "session.audio.input.noise_reduction",
    "session.turn_detection": "session.audio.input.turn_detection",
    "session.speed": "session.audio.output.speed",
    "session.max_response_output_tokens": "session.max_output_tokens",
    "response.modalities": "response.output_modalities",
    "response.voice": "response.audio.output.voice",
    "response.output_audio_format": "response.audio.output.format",
    "response.max_response_output_tokens": "response.max_output_tokens",
}


class ProtocolError(Exception):
    """A client event that can not be obeyed. Nothing of it was applied; the session goes on.

    `code` and `param` are the wire's; `event_id` is the client's own id of the event, where it was
    readable.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid_value",
        param: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.event_id = event_id


class ClientModel(BaseModel):
    """Something a client sends: no unknown field, no silent conversion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ServerModel(BaseModel):
    """Something a server sends. An optional field (default None) that is None is left out; a
    required one is null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        spec = type(self).model_fields
        return {
            key: value
            for key, value in handler(self).items()
            if value is not None or spec[key].is_required()
        }


def new_event_id() -> str:
    """A unique id of a server event."""
    return f"event_{secrets.token_hex(10)}"


class ServerEvent(ServerModel):
    """Any event of a server; `type` is fixed by each subclass."""

    type: str
    event_id: str = Field(default_factory=new_event_id)

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return self.model_dump_json()


def not_supported(what: str) -> PydanticCustomError:
    """The error of a field whose value is legal in the protocol but not served here."""
    return PydanticCustomError("invalid_value", "{what} not supported here yet", {"what": what})


def wrong_value(message: str, **context: Any) -> PydanticCustomError:
    """The error of a field with an impossible value. `message` may name `context` in braces."""
    return PydanticCustomError("invalid_value", message, context or None)


def error_from(error: ValidationError, prefix: str = "") -> ProtocolError:
    """The first finding of a validation in the protocol's words."""
    first = error.errors(include_url=False)[0]
    return _translate(first, prefix)


def _translate(first: ErrorDetails, prefix: str) -> ProtocolError:
    param = _path(prefix, first["loc"])
    kind = first["type"]
    code = _CODES.get(kind, "invalid_value")
    if any(isinstance(bound, float) for bound in first.get("ctx", {}).values()):
        code = code.replace("integer", "decimal")
    if kind == "missing":
        message = f"Missing required parameter: '{param}'."
    elif kind == "extra_forbidden":
        message = f"Unknown parameter: '{param}'."
        if param in _MOVED:
            message += f" It is '{_MOVED[param]}' now."
    else:
        reason = first["msg"].removeprefix("Input ").rstrip(".")
        if kind in ("model_type", "dict_type"):
            reason = "should be an object"
        where = f" for '{param}'" if param else ""
        message = f"Invalid value{where}: {reason}."
    return ProtocolError(message, code=code, param=param or None)


def _path(prefix: str, loc: tuple[int | str, ...]) -> str:
    """`session.tools[0].name`"""
    path = prefix
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part[:MAX_ECHOED_CHARS]}" if path else part[:MAX_ECHOED_CHARS]
    return path
