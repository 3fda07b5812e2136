"""Conversation items on the wire: what a client may create, and how a server shows one.

Items never carry audio except in `conversation.item.retrieved`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from daemon.protocol_base import ClientModel, ServerModel, wrong_value

_PARTS_OF = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "text"),
}


# The first is needed.
_FIELDS_OF_PART = {
    "input_text": ("text",),
    "output_text": ("text",),
    "text": ("text",),
    "input_audio": ("audio", "transcript"),
    "input_image": ("image_url", "detail"),
    "output_audio": ("transcript", "audio"),
}


class PartIn(ClientModel):
    """One part of a message that a client creates. `text` is the older name of `output_text`."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio", "text"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_others(cls, data: Any) -> Any:
        """A part has the fields of its type and no others."""
        if isinstance(data, dict) and data.get("type") in _FIELDS_OF_PART:
            known = ("type", *_FIELDS_OF_PART[data["type"]])
            others = [name for name in data if name not in known and data[name] is not None]
            if others:
                raise ValidationError.from_exception_data(
                    "part",
                    [
                        InitErrorDetails(type="extra_forbidden", loc=(name,), input=None)
                        for name in others
                    ],
                )
        return data

    @model_validator(mode="after")
    def _check(self) -> PartIn:
        needed = _FIELDS_OF_PART[self.type][0]
        if self.type == "output_audio":
            raise wrong_value("assistant audio can not be created, only its text (output_text)")
        if getattr(self, needed) is None:
            raise wrong_value(
                "a part of type '{kind}' needs '{field}'", kind=self.type, field=needed
            )
        return self


def _check_item_id(value: str | None) -> str | None:
    if value == "root":
        raise wrong_value("'root' stands for the beginning of the conversation")
    return value


def _check_item_type(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("mcp_") and value not in _FIELDS_OF:
        raise wrong_value("items of this type are made by the server alone")
    return value


_FIELDS_OF = {
    "message": ("role", "content"),
    "function_call": ("name", "call_id", "arguments"),
    "function_call_output": ("call_id", "output"),
    "mcp_approval_response": ("approval_request_id", "approve"),
}
_OPTIONAL_OF = {"mcp_approval_response": ("reason",)}


class ItemIn(ClientModel):
    """An item that a client creates; `object` and `status` are taken and ignored."""

    type: Annotated[
        Literal["message", "function_call", "function_call_output", "mcp_approval_response"],
        BeforeValidator(_check_item_type),
    ]
    role: Literal["system", "user", "assistant"] | None = None
    content: list[PartIn] | None = Field(default=None, min_length=1, max_length=64)
    name: str | None = Field(default=None, max_length=64)
    call_id: str | None = Field(default=None, min_length=1, max_length=64)
    arguments: str | None = None
    output: str | None = None
    approval_request_id: str | None = Field(default=None, max_length=64)
    approve: bool | None = None
    reason: str | None = Field(default=None, max_length=4096)
    id: Annotated[
        str | None, Field(pattern=r"^[a-zA-Z0-9_-]{1,32}$"), AfterValidator(_check_item_id)
    ] = None
    object: str | None = None
    status: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_type_first(cls, data: Any) -> Any:
        """An item of another type is refused for that, not for its fields."""
        if isinstance(data, dict):
            kind = data.get("type")
            try:
                _check_item_type(kind)
            except PydanticCustomError as error:
                details = InitErrorDetails(type=error, loc=("type",), input=kind)
                raise ValidationError.from_exception_data("item", [details]) from error
            _check_fields(data)
        return data

    @model_validator(mode="after")
    def _check_parts(self) -> ItemIn:
        for part in self.content or ():
            if part.type not in _PARTS_OF[self.role or "user"]:
                raise wrong_value(
                    "a message of role '{role}' can not hold a part of type '{kind}'",
                    role=self.role,
                    kind=part.type,
                )
        return self


def _check_fields(data: dict[Any, Any]) -> None:
    """An item has the fields of its type, all of them and no others."""
    kind = str(data.get("type"))
    needed, optional = _FIELDS_OF.get(kind, ()), _OPTIONAL_OF.get(kind, ())
    known = [*_FIELDS_OF.values(), *_OPTIONAL_OF.values()]
    others = {name for names in known for name in names} - {*needed, *optional}
    found: list[InitErrorDetails] = [
        InitErrorDetails(type="missing", loc=(name,), input=data)
        for name in needed
        if data.get(name) is None
    ]
    if needed:
        found += [
            InitErrorDetails(type="extra_forbidden", loc=(name,), input=data[name])
            for name in sorted(others)
            if data.get(name) is not None
        ]
    if found:
        raise ValidationError.from_exception_data("item", found)


class ItemPart(ServerModel):
    """A part of a shown item; which fields there are follows from the type."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: str | None = None

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Speech that is not transcribed has the transcript null: strict clients want the key."""
        shown: dict[str, Any] = super()._leave_out_absent(handler)
        if self.type == "input_audio":
            shown.setdefault("transcript", None)
        return shown


class ItemView(ServerModel):
    """A shown item; which fields there are follows from the type."""

    id: str
    object: Literal["realtime.item"] | None = "realtime.item"
    type: Literal[
        "message",
        "function_call",
        "function_call_output",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
    ] = "message"
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    role: Literal["system", "user", "assistant"] | None = None
    content: list[ItemPart] | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: str | None = None
    server_label: str | None = None
    tools: list[dict[str, Any]] | None = None
    error: dict[str, Any] | None = None
    approval_request_id: str | None = None
    approve: bool | None = None
    reason: str | None = None
