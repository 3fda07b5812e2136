"""The messages of a chat request as the engine's: media read, system messages set apart.

What stands before all others is the context's instructions; the rest becomes its log, in order.
Spoken answers of before come back by their id: `Transcripts` remembers for a while what they said.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.chat_request import ChatMessage, ContentPart
from daemon.images import decode_image
from daemon.media_files import decode_audio, decode_video, slides
from daemon.media_sources import media_bytes
from daemon.protocol import ProtocolError
from daemon.settings import Settings
from daemon.wire_items import is_json_object
from pipeline.errors import BadInputError
from pipeline.history import joined
from pipeline.messages import (
    AudioPart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

MAX_TRANSCRIPTS = 1_000


class Transcripts:
    """What spoken answers said, by their ids; only the newest are known."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()

    def keep(self, audio_id: str, text: str) -> None:
        """Remember an answer."""
        self._texts[audio_id] = text
        while len(self._texts) > MAX_TRANSCRIPTS:
            self._texts.popitem(last=False)

    def find(self, audio_id: str, *, param: str) -> str:
        """What it said.

        Raises:
            BadInputError: it is not known, or not any more.
        """
        if audio_id not in self._texts:
            message = f"The audio '{audio_id[:80]}' is not known (any more)."
            raise BadInputError(message, code="audio_not_found", param=param)
        return self._texts[audio_id]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request's messages are to the engine."""

    instructions: str
    messages: tuple[Message, ...]


async def read_messages(
    given: Sequence[ChatMessage], settings: Settings, transcripts: Transcripts
) -> Conversation:
    """All messages of a request. Media are fetched and decoded in threads.

    Raises:
        BadInputError, ProtocolError: one can not be read; `param` names it.
    """
    num_first = next(
        (i for i, each in enumerate(given) if each.role not in ("system", "developer")), len(given)
    )
    instructions = "\n\n".join(_text(each) for each in given[:num_first])
    reader = _Reader(settings, transcripts)
    messages = [
        await reader.read(each, f"messages[{index}]")
        for index, each in enumerate(given)
        if index >= num_first
    ]
    return Conversation(instructions, joined(each for each in messages if each.parts))


def _text(message: ChatMessage) -> str:
    return "".join(part.text or part.refusal or "" for part in message.content or ())


class _Reader:
    """Reads messages in order; knows the calls that results may answer."""

    def __init__(self, settings: Settings, transcripts: Transcripts) -> None:
        self._settings = settings
        self._transcripts = transcripts
        self._call_ids: set[str] = set()

    async def read(self, message: ChatMessage, param: str) -> Message:
        match message.role:
            case "system" | "developer":
                return Message(role="system", parts=(TextPart(text=_text(message)),))
            case "assistant":
                return Message(role="assistant", parts=tuple(self._said(message, param)))
            case "tool":
                if message.tool_call_id not in self._call_ids:
                    raise ProtocolError(
                        "A message of a tool has to follow the call that it answers.",
                        param=f"{param}.tool_call_id",
                    )
                return Message(role="user", parts=(ToolResultPart(output=_text(message)),))
            case "user":
                content = message.content or ()
                parts = [
                    await self._part(part, f"{param}.content[{index}]")
                    for index, part in enumerate(content)
                ]
                return Message(role="user", parts=tuple(parts))

    def _said(self, message: ChatMessage, param: str) -> list[Part]:
        text = _text(message)
        if message.audio is not None and not text:
            text = self._transcripts.find(message.audio.id, param=f"{param}.audio.id")
        parts: list[Part] = [TextPart(text=text)] if text else []
        for index, call in enumerate(message.tool_calls or ()):
            if not is_json_object(call.function.arguments):
                where = f"{param}.tool_calls[{index}].function.arguments"
                raise BadInputError("The arguments are not a JSON object.", param=where)
            self._call_ids.add(call.id)
            parts.append(ToolCallPart(name=call.function.name, arguments=call.function.arguments))
        return parts

    # ------------------------------------------------------------------ media
    async def _part(self, part: ContentPart, param: str) -> Part:
        where = f"{param}.{part.type}"
        if part.image_url is not None and part.type == "image_url":
            return await self._image(part.image_url.url, f"{where}.url")
        if part.audio_url is not None and part.type == "audio_url":
            data = await self._fetch(part.audio_url.url, f"{where}.url")
            return await self._sound(data, f"{where}.url")
        if part.input_audio is not None and part.type == "input_audio":
            given, where = part.input_audio.data, f"{where}.data"
            if ":" not in given[:8]:
                given = f"data:;base64,{given}"
            data = await self._fetch(given, where)
            return await self._sound(data, where)
        if part.video_url is not None and part.type == "video_url":
            data = await self._fetch(part.video_url.url, f"{where}.url")
            return await self._film(data, f"{where}.url")
        if part.video is not None and part.type == "video":
            images = [
                await self._image(url, f"{where}[{index}]") for index, url in enumerate(part.video)
            ]
            return slides([image.rgb for image in images])
        return TextPart(text=part.text or part.refusal or "")

    async def _fetch(self, url: str, param: str) -> bytes:
        return await media_bytes(
            url,
            hosts=self._settings.server.media_hosts,
            max_bytes=self._settings.limits.max_upload_bytes,
            param=param,
        )

    async def _image(self, url: str, param: str) -> ImagePart:
        limits = self._settings.limits
        data = await media_bytes(
            url,
            hosts=self._settings.server.media_hosts,
            max_bytes=limits.max_image_bytes,
            param=param,
        )
        rgb = await asyncio.to_thread(
            decode_image, data, max_pixels=limits.max_image_pixels, param=param
        )
        return ImagePart(rgb=rgb)

    async def _sound(self, data: bytes, param: str) -> AudioPart:
        max_s = self._settings.limits.max_audio_s
        pcm = await asyncio.to_thread(decode_audio, data, max_s=max_s, param=param)
        return AudioPart(pcm=pcm)

    async def _film(self, data: bytes, param: str) -> AudioPart:
        return await asyncio.to_thread(
            decode_video,
            data,
            max_s=self._settings.limits.max_video_s,
            max_pixels=self._settings.limits.max_image_pixels,
            side=self._settings.webrtc.frame_side,
            param=param,
        )
