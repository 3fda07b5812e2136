"""Items between the wire and the conversation: parts to content and back."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.audio_formats import speech_base64, whole_speech
from daemon.images import data_uri_bytes, decode_base64, decode_image
from daemon.protocol import AudioFormatView, ItemIn, ItemPart, ItemView, PartIn
from daemon.settings import LimitSettings
from pipeline.errors import BadInputError
from pipeline.items import (
    CallContent,
    Content,
    ImageContent,
    Item,
    NoteContent,
    OutputContent,
    SpeechContent,
    TextContent,
    VoiceContent,
)
from pipeline.messages import ENGINE_INPUT_HZ, ENGINE_OUTPUT_HZ, Pcm, Pcm16


def item_from_wire(
    item: ItemIn, limits: LimitSettings, audio_format: AudioFormatView, param: str = "item"
) -> Item:
    """A client's message as an item, its sound in the session's input format. Decodes pictures and
    audio: call it in a thread. `param`: where the event has it.

    Raises:
        BadInputError, ProtocolError: a picture or audio that can not be read; `param` names the
            part.
    """
    item_id = item.id or f"item_{secrets.token_hex(8)}"
    if item.type == "mcp_approval_response":
        message = "An approval is given in the conversation, not for one response."
        raise BadInputError(message, param=f"{param}.type")
    if item.type == "function_call":
        return Item(id=item_id, role="assistant", content=[_call(item, param)])
    if item.type == "function_call_output":
        output = OutputContent(call_id=item.call_id or "", output=item.output or "")
        return Item(id=item_id, role="user", content=[output])
    content = [
        _content(part, f"{param}.content[{index}]", limits, audio_format)
        for index, part in enumerate(item.content or ())
    ]
    assert item.role is not None
    return Item(id=item_id, role=item.role, content=content)


def _call(item: ItemIn, param: str) -> CallContent:
    arguments = item.arguments or ""
    if not is_json_object(arguments):
        raise BadInputError("The arguments are not a JSON object.", param=f"{param}.arguments")
    return CallContent(name=item.name or "", call_id=item.call_id or "", arguments=arguments)


def is_json_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _content(
    part: PartIn, param: str, limits: LimitSettings, audio_format: AudioFormatView
) -> Content:
    if part.type == "input_image":
        uri, where = part.image_url or "", f"{param}.image_url"
        data = data_uri_bytes(uri, max_bytes=limits.max_image_bytes, param=where)
        rgb = decode_image(data, max_pixels=limits.max_image_pixels, param=where)
        return ImageContent(rgb=rgb, data_uri=uri, detail=part.detail or "auto")
    if part.type == "input_audio":
        where = f"{param}.audio"
        data = decode_base64(part.audio or "", max_bytes=limits.max_append_bytes, param=where)
        pcm = whole_speech(data, audio_format, param=where)
        return SpeechContent(pcm=pcm, transcript=part.transcript)
    return TextContent(text=part.text or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """How sound and pictures of an item are shown; `max_chars`: of one part, as text. Longer ones
    are left out.
    """

    input_format: AudioFormatView
    output_format: AudioFormatView
    max_chars: int


def view_of(item: Item, *, media: Media | None = None) -> ItemView:
    """An item as the wire shows it now (items change; a view does not), as a rule without sound and
    pictures.
    """
    if item.note is not None:
        return _remote_view(item, item.note.shown)
    if item.call is not None:
        call = item.call
        if call.shown is not None:
            arguments = "" if item.status == "in_progress" else call.arguments
            return _remote_view(item, {**call.shown, "arguments": arguments})
        return ItemView(
            id=item.id,
            type="function_call",
            status=item.status,
            name=call.name,
            call_id=call.call_id,
            arguments="" if item.status == "in_progress" else call.arguments,
        )
    if item.output is not None:
        return ItemView(
            id=item.id,
            type="function_call_output",
            status=item.status,
            call_id=item.output.call_id,
            output=item.output.output,
        )
    # a reply under way shows its content by the events of its parts
    content = [] if item.status == "in_progress" else item.content
    return ItemView(
        id=item.id,
        status=item.status,
        role=item.role,
        content=[_part(item, each, media) for each in content],
    )


def _remote_view(item: Item, shown: dict[str, Any]) -> ItemView:
    """An item of a remote server's: those have neither object nor status."""
    return ItemView.model_validate({"id": item.id, "object": None, "status": None, **shown})


def _part(item: Item, content: Content, media: Media | None) -> ItemPart:
    match content:
        case TextContent():
            if item.role == "assistant":
                return ItemPart(type="output_text", text=content.text)
            return ItemPart(type="input_text", text=content.text)
        case ImageContent():
            # like audio, a picture comes back only where it was asked for and fits
            is_shown = media is not None and len(content.data_uri) <= media.max_chars
            uri = content.data_uri if is_shown else None
            return ItemPart(type="input_image", image_url=uri, detail=content.detail)
        case SpeechContent():
            audio = None if media is None else _speech_base64(content.pcm, media)
            return ItemPart(type="input_audio", audio=audio, transcript=content.transcript)
        case VoiceContent():
            audio = None if media is None else _voice_base64(content.pcm, media)
            return ItemPart(type="output_audio", audio=audio, transcript=content.transcript)
        case CallContent() | OutputContent() | NoteContent():
            raise AssertionError("shown as an item of its own type")


def _speech_base64(pcm: Pcm, media: Media) -> str | None:
    return speech_base64(
        pcm, media.input_format, from_hz=ENGINE_INPUT_HZ, max_chars=media.max_chars
    )


def _voice_base64(chunks: list[Pcm16], media: Media) -> str | None:
    pcm = np.concatenate([np.zeros(0, np.int16), *chunks]).astype(np.float32) / 32768.0
    return speech_base64(
        pcm, media.output_format, from_hz=ENGINE_OUTPUT_HZ, max_chars=media.max_chars
    )
