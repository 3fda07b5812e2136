"""Client events, and how text from a socket becomes one of them."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from daemon.protocol_audio import AudioFormat
from daemon.protocol_base import (
    MAX_ECHOED_CHARS,
    ClientModel,
    ProtocolError,
    error_from,
    wrong_value,
)
from daemon.protocol_items import ItemIn
from daemon.protocol_session import (
    MaxTokens,
    Modalities,
    Prompt,
    Reasoning,
    SessionPatch,
    Voice,
)
from daemon.protocol_tools import ResponseTools, ToolChoice

MANY_CHARS = 1 << 20
MANY_VALUES = 100_000  # far more than the schemas of many tools; a long text may hold some commas
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class ClientEvent(ClientModel):
    """Any event of a client."""

    type: str
    event_id: str | None = Field(default=None, max_length=512)


class SessionUpdate(ClientEvent):
    """Change the session; only present fields change."""

    session: SessionPatch


class InputAudioAppend(ClientEvent):
    """More microphone audio, base64."""

    audio: str


class InputAudioCommit(ClientEvent):
    """End the turn by hand."""


class InputAudioClear(ClientEvent):
    """Forget the audio that is not committed."""


class InputImageAppend(ClientEvent):
    """Extension: a camera frame of now, a base64 JPEG. `ts_ms` is the client's clock, taken and
    ignored.
    """

    image: str
    ts_ms: float | None = None


class ItemCreate(ClientEvent):
    """Insert a message."""

    item: ItemIn
    previous_item_id: str | None = None


class ItemRetrieve(ClientEvent):
    """Show an item with its audio."""

    item_id: str


def _check_content_index(value: Any) -> Any:
    if value != 0:
        raise wrong_value("should be 0: speech is the only part of its item")
    return value


class ItemTruncate(ClientEvent):
    """Cut a spoken reply to what was heard."""

    item_id: str
    content_index: Annotated[int, BeforeValidator(_check_content_index)]
    audio_end_ms: int = Field(ge=0)


class ItemDelete(ClientEvent):
    """Take an item out."""

    item_id: str


class ResponseOutput(ClientModel):
    """`response.audio.output`"""

    format: AudioFormat | None = None
    voice: Voice | None = None


class ResponseAudio(ClientModel):
    """`response.audio`"""

    output: ResponseOutput | None = None


class ItemReference(ClientModel):
    """An item of the conversation, named in the input of a response."""

    type: Literal["item_reference"]
    id: str


def _parse_input_item(value: Any) -> Any:
    is_reference = isinstance(value, dict) and value.get("type") == "item_reference"
    return (ItemReference if is_reference else ItemIn).model_validate(value)


InputItem = Annotated[ItemIn | ItemReference, BeforeValidator(_parse_input_item)]


def _check_metadata(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise wrong_value("should be an object of strings")
    if len(value) > 16 or any(len(key) > 64 or len(each) > 512 for key, each in value.items()):
        raise PydanticCustomError(
            "invalid_value", "at most 16 pairs, keys of 64 and values of 512 characters"
        )
    return value


class ResponseParams(ClientModel):
    """What one response may choose for itself."""

    conversation: Literal["auto", "none"] | None = None
    input: list[InputItem] | None = Field(default=None, max_length=256)
    instructions: str | None = None
    output_modalities: Modalities | None = None
    audio: ResponseAudio | None = None
    max_output_tokens: MaxTokens = None
    tools: ResponseTools = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    prompt: Prompt = None
    metadata: Annotated[dict[str, str] | None, BeforeValidator(_check_metadata)] = None

    @property
    def is_aside(self) -> bool:
        """Whether the conversation shall not know of it."""
        return self.conversation == "none"


class ResponseCreate(ClientEvent):
    """Start a reply by hand."""

    response: ResponseParams | None = None


class ResponseCancel(ClientEvent):
    """Stop the active reply."""

    response_id: str | None = None


class OutputAudioClear(ClientEvent):
    """Stop what is being played (WebRTC)."""


CLIENT_EVENTS: dict[str, type[ClientEvent]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": InputAudioAppend,
    "input_audio_buffer.commit": InputAudioCommit,
    "input_audio_buffer.clear": InputAudioClear,
    "input_image_buffer.append": InputImageAppend,
    "conversation.item.create": ItemCreate,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.truncate": ItemTruncate,
    "conversation.item.delete": ItemDelete,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
    "output_audio_buffer.clear": OutputAudioClear,
}


def parse_client_event(data: str | bytes) -> ClientEvent:
    """One message of a socket as a typed event.

    Raises:
        ProtocolError: not JSON, not an event, or not valid; the error names the field and echoes
            the event's id.
    """
    message = _parse_json(data)
    event_id = message.get("event_id")
    echo = event_id if isinstance(event_id, str) and len(event_id) <= 512 else None
    kind = message.get("type")
    if kind is None:
        raise ProtocolError(
            "The 'type' field is missing.", code="invalid_event", param="type", event_id=echo
        )
    model = CLIENT_EVENTS.get(kind) if isinstance(kind, str) else None
    if model is None:
        shown = str(kind)[:MAX_ECHOED_CHARS]
        raise ProtocolError(
            f"Invalid value: '{shown}'. Supported values are: {', '.join(CLIENT_EVENTS)}.",
            param="type",
            event_id=echo,
        )
    try:
        return model.model_validate(message)
    except ValidationError as error:
        found = error_from(error)
        found.event_id = echo
        raise found from error


def _parse_json(data: str | bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        _check_size(text)
        message = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ProtocolError("The event is nested too deeply.", code="invalid_json") from error
    except ValueError as error:
        raise ProtocolError("The event is not valid JSON.", code="invalid_json") from error
    if not isinstance(message, dict):
        raise ProtocolError("The event is not a JSON object.", code="invalid_json")
    if _SURROGATE.search(text):
        _check_surrogates(message)
    return message


def _check_size(text: str) -> None:
    """A long event is sound, a picture or a text: one long value. Many small ones would take whole
    seconds to read, in which nobody else is served.
    """
    if len(text) > MANY_CHARS and text.count(",") + text.count("[") > MANY_VALUES:
        raise ProtocolError("The event holds too many values.", code="invalid_json")


def _check_surrogates(message: dict[str, Any]) -> None:
    """Half a surrogate pair is legal JSON and no text: it could never be sent back."""
    try:
        json.dumps(message, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProtocolError("The event holds half a character.", code="invalid_json") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
