"""Items between the wire and the conversation: parts to content and back."""

from __future__ import annotations

import base64
import json
import secrets

import numpy as np

from daemon.images import data_uri_bytes, decode_base64, decode_image
from daemon.protocol import PCM_RATE_HZ, ItemIn, ItemPart, ItemView, PartIn
from daemon.settings import LimitSettings
from pipeline.errors import BadInputError
from pipeline.items import (
    CallContent,
    Content,
    ImageContent,
    Item,
    OutputContent,
    SpeechContent,
    TextContent,
    VoiceContent,
)
from pipeline.messages import ENGINE_INPUT_HZ, Pcm, Pcm16
from pipeline.resample import resample


def item_from_wire(item: ItemIn, limits: LimitSettings) -> Item:
    """A client's message as an item. Decodes pictures and audio: call it in a thread.

    Raises:
        BadInputError: a picture or audio that can not be read; `param` names the part.
    """
    item_id = item.id or f"item_{secrets.token_hex(8)}"
    if item.type == "function_call":
        return Item(id=item_id, role="assistant", content=[_call(item)])
    if item.type == "function_call_output":
        output = OutputContent(call_id=item.call_id or "", output=item.output or "")
        return Item(id=item_id, role="user", content=[output])
    content = [
        _content(part, f"item.content[{index}]", limits)
        for index, part in enumerate(item.content or ())
    ]
    assert item.role is not None
    return Item(id=item_id, role=item.role, content=content)


def _call(item: ItemIn) -> CallContent:
    arguments = item.arguments or ""
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise BadInputError("The arguments are not a JSON object.", param="item.arguments")
    return CallContent(name=item.name or "", call_id=item.call_id or "", arguments=arguments)


def _content(part: PartIn, param: str, limits: LimitSettings) -> Content:
    if part.type == "input_image":
        uri, where = part.image_url or "", f"{param}.image_url"
        data = data_uri_bytes(uri, max_bytes=limits.max_image_bytes, param=where)
        rgb = decode_image(data, max_pixels=limits.max_image_pixels, param=where)
        return ImageContent(rgb=rgb, data_uri=uri, detail=part.detail or "auto")
    if part.type == "input_audio":
        where = f"{param}.audio"
        data = decode_base64(part.audio or "", max_bytes=limits.max_append_bytes, param=where)
        if len(data) % 2 or not data:
            raise BadInputError("PCM16 audio has two bytes for each sample.", param=where)
        pcm = resample(pcm_from_bytes(data), in_hz=PCM_RATE_HZ, out_hz=ENGINE_INPUT_HZ)
        return SpeechContent(pcm=pcm, transcript=part.transcript)
    return TextContent(text=part.text or "")


def pcm_from_bytes(data: bytes) -> Pcm:
    """PCM16 little endian to float32 in -1..1."""
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768.0


def view_of(item: Item, *, with_audio_bytes: int = 0) -> ItemView:
    """An item as the wire shows it now (items change; a view does not).

    Args:
        with_audio_bytes: include audio, if its base64 is no longer than this.
    """
    if item.call is not None:
        call = item.call
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
        content=[_part(item, each, with_audio_bytes) for each in content],
    )


def _part(item: Item, content: Content, max_base64: int) -> ItemPart:
    match content:
        case TextContent():
            if item.role == "assistant":
                return ItemPart(type="output_text", text=content.text)
            return ItemPart(type="input_text", text=content.text)
        case ImageContent():
            # like audio, a picture comes back only where it was asked for and fits
            uri = content.data_uri if len(content.data_uri) <= max_base64 else None
            return ItemPart(type="input_image", image_url=uri, detail=content.detail)
        case SpeechContent():
            audio = _speech_base64(content.pcm, max_base64)
            return ItemPart(type="input_audio", audio=audio, transcript=content.transcript)
        case VoiceContent():
            audio = _voice_base64(content.pcm, max_base64)
            return ItemPart(type="output_audio", audio=audio, transcript=content.transcript)
        case CallContent() | OutputContent():
            raise AssertionError("shown as an item of its own type")


def _speech_base64(pcm: Pcm, max_base64: int) -> str | None:
    if len(pcm) * PCM_RATE_HZ // ENGINE_INPUT_HZ * 8 // 3 >= max_base64:
        return None
    pcm = resample(pcm, in_hz=ENGINE_INPUT_HZ, out_hz=PCM_RATE_HZ)
    return pcm16_base64(np.clip(pcm * 32768.0, -32768, 32767).astype(np.int16))


def _voice_base64(chunks: list[Pcm16], max_base64: int) -> str | None:
    if not chunks or sum(len(chunk) for chunk in chunks) * 8 // 3 >= max_base64:
        return None
    return pcm16_base64(np.concatenate(chunks))


def pcm16_base64(pcm: Pcm16) -> str:
    """Samples as base64 of little-endian PCM16."""
    return base64.b64encode(pcm.astype("<i2", copy=False).tobytes()).decode("ascii")
