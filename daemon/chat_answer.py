"""How an answer to a chat request looks: whole, or as the chunks of a stream.

Spoken text stands in `content` as well as in `audio.transcript`, because Qwen's own examples read
the first and OpenAI's the second. Samples are sent in multiples of three, so that the base64 of all
chunks can be joined before it is read, as those examples do. Pure: knows no engine and no sockets.
"""

from __future__ import annotations

import base64
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.chat_request import ChatRequest
from pipeline.messages import (
    AudioDelta,
    Pcm16,
    ResponseEnded,
    TextDelta,
    ToolCallDelta,
    Usage,
)

AUDIO_EXPIRES_S = 3_600
_JOINABLE_SAMPLES = 3  # six bytes: eight characters of base64 without padding


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True, kw_only=True)
class ChatAnswer:
    """An answer as it grows: what was said, its samples, its calls."""

    request: ChatRequest
    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    audio_id: str = field(default_factory=lambda: f"audio_{secrets.token_hex(12)}")
    created_s: int = field(default_factory=lambda: int(time.time()))
    text: str = ""
    _pcm: list[Pcm16] = field(default_factory=list)
    _calls: dict[int, _Call] = field(default_factory=dict)

    # ------------------------------------------------------------------ growing
    def take(self, part: TextDelta | AudioDelta | ToolCallDelta) -> dict[str, Any] | None:
        """Take a part in; returns what a stream tells of it, if anything yet."""
        match part:
            case TextDelta():
                self.text += part.text
                audio = {"audio": self._audio(transcript=part.text)}
                return {"content": part.text, **(audio if self.request.has_audio else {})}
            case AudioDelta():
                self._pcm.append(part.pcm)
                return self._samples() if self.request.is_streamed else None
            case ToolCallDelta():
                return self._call(part)

    @property
    def pcm(self) -> Pcm16:
        """The samples so far that were not streamed."""
        return np.concatenate([np.zeros(0, np.int16), *self._pcm])

    def _samples(self, *, is_last: bool = False) -> dict[str, Any] | None:
        pcm = self.pcm
        num_ready = len(pcm) if is_last else len(pcm) - len(pcm) % _JOINABLE_SAMPLES
        self._pcm = [pcm[num_ready:]]
        if not num_ready:
            return None
        data = base64.b64encode(pcm[:num_ready].astype("<i2", copy=False).tobytes())
        return {"audio": self._audio(data=data.decode("ascii"))}

    def _audio(self, **what: Any) -> dict[str, Any]:
        return {"id": self.audio_id, **what}

    def _call(self, part: ToolCallDelta) -> dict[str, Any]:
        found = self._calls.get(part.index)
        function: dict[str, Any] = {"arguments": part.arguments}
        head: dict[str, Any] = {}
        if found is None:
            found = self._calls[part.index] = _Call(f"call_{secrets.token_hex(12)}", part.name)
            function["name"] = part.name
            head = {"id": found.id, "type": "function"}
        found.arguments += part.arguments
        return {"tool_calls": [{"index": part.index, **head, "function": function}]}

    # ------------------------------------------------------------------ chunks of a stream
    def first_chunk(self) -> dict[str, Any]:
        """Who speaks."""
        return self.chunk({"role": "assistant", "content": ""})

    def chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
        """A chunk that tells this."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        usage = {"usage": None} if self.request.has_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **usage}

    def last_chunks(self, ended: ResponseEnded) -> list[dict[str, Any]]:
        """What a stream ends with, `[DONE]` apart."""
        chunks = []
        if self.request.has_audio and (rest := self._samples(is_last=True)) is not None:
            chunks.append(self.chunk(rest))
        if self.request.has_audio and not self._calls:
            chunks.append(self.chunk({"audio": self._audio(expires_at=self._expires_at)}))
        chunks.append(self.chunk({}, finish_reason=self._finish_reason(ended)))
        if self.request.has_usage:
            head = self._head("chat.completion.chunk")
            chunks.append({**head, "choices": [], "usage": usage_of(ended.usage)})
        return chunks

    # ------------------------------------------------------------------ the whole
    def whole(self, ended: ResponseEnded, audio_file: bytes | None) -> dict[str, Any]:
        """The body of an answer that is not streamed; `audio_file`: its speech, if it has one."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.text or None,
            "refusal": None,
        }
        if audio_file is not None:
            data = base64.b64encode(audio_file).decode("ascii")
            message["audio"] = self._audio(
                data=data, transcript=self.text, expires_at=self._expires_at
            )
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self._calls.values()
            ]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": self._finish_reason(ended),
            "logprobs": None,
        }
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": usage_of(ended.usage)}

    # ------------------------------------------------------------------ parts
    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created_s, "model": self.model}

    @property
    def _expires_at(self) -> int:
        return self.created_s + AUDIO_EXPIRES_S

    def _finish_reason(self, ended: ResponseEnded) -> str:
        if ended.status == "incomplete":
            return "length"
        return "tool_calls" if self._calls else "stop"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens as chat counts them."""
    prompt = usage.input_text_tokens + usage.input_audio_tokens + usage.input_image_tokens
    completion = usage.output_text_tokens + usage.output_audio_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "text_tokens": usage.input_text_tokens,
            "audio_tokens": usage.input_audio_tokens,
            "image_tokens": usage.input_image_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "completion_tokens_details": {
            "text_tokens": usage.output_text_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "reasoning_tokens": 0,
        },
    }
