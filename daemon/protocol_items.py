"""Conversation items on the wire: what a client may create, and how a server shows one.

Items never carry audio except in `conversation.item.retrieved`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from daemon.protocol_base import ClientModel, ServerModel, not_supported, wrong_value

_PARTS_OF = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "text"),
}


class PartIn(ClientModel):
    """One part of a message that a client creates. `text` is the older name of `output_text`."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio", "text"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="after")
    def _check(self) -> PartIn:
        needed = {"input_audio": "audio", "input_image": "image_url"}.get(self.type, "text")
        if self.type == "output_audio":
            raise wrong_value("assistant audio can not be created, only its text (output_text)")
        if getattr(self, needed) is None:
            raise wrong_value(
                "a part of type '{kind}' needs '{field}'", kind=self.type, field=needed
            )
        return self


def _check_item_type(value: Any) -> Any:
    if value in ("function_call", "function_call_output"):
        raise not_supported("Tools are")
    if isinstance(value, str) and value.startswith("mcp_"):
        raise not_supported("MCP is")
    return value


class ItemIn(ClientModel):
    """A message that a client creates; `object` and `status` are taken and ignored."""

    type: Annotated[Literal["message"], BeforeValidator(_check_item_type)]
    role: Literal["system", "user", "assistant"]
    content: list[PartIn] = Field(min_length=1, max_length=64)
    id: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9_-]{1,32}$")
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
        return data

    @model_validator(mode="after")
    def _check_parts(self) -> ItemIn:
        for part in self.content:
            if part.type not in _PARTS_OF[self.role]:
                raise wrong_value(
                    "a message of role '{role}' can not hold a part of type '{kind}'",
                    role=self.role,
                    kind=part.type,
                )
        return self


class ItemPart(ServerModel):
    """A part of a shown item; which fields there are follows from the type."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: str | None = None


class ItemView(ServerModel):
    """A shown item."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["system", "user", "assistant"]
    content: list[ItemPart]
