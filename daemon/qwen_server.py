"""Server events of the Realtime protocol, in the words of the hosted Qwen-Omni-Realtime service."""

from __future__ import annotations

import json
import re
from typing import Any

from daemon.protocol import ServerEvent
from daemon.protocol_base import new_event_id
from daemon.protocol_server import ErrorEvent

_Event = dict[str, Any]

_RENAMED = {
    "conversation.item.added": "conversation.item.created",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
# Where `daemon.qwen_client` moves what the service's clients say, and what they call it.
_PARAMS = (
    (re.compile(r"^session\.audio\.output\.voice\b"), "session.voice"),
    (re.compile(r"^session\.audio\.input\.turn_detection\b"), "session.turn_detection"),
    (re.compile(r"^session\.audio\.input\.transcription\b"), "session.input_audio_transcription"),
    (re.compile(r"^(session\.audio\.\w+\.format)\.rate\b"), r"\1.sample_rate"),
    (re.compile(r"^session\.output_modalities\b"), "session.modalities"),
    (re.compile(r"^session\.max_output_tokens\b"), "session.max_tokens"),
    (re.compile(r"^session\.x_sampling\."), "session."),
    (re.compile(r"^(session\.tools\[\d+\])\.(?!type\b)"), r"\1.function."),
    (re.compile(r"^response\.output_modalities\b"), "response.modalities"),
    (re.compile(r"^response\.audio\.output\.voice\b"), "response.voice"),
)
_UNKNOWN_THERE = ("conversation.item.done", "rate_limits.updated")
_PARTS = {"output_text": "text", "output_audio": "audio"}


def shown(event: ServerEvent) -> str | None:
    """One server event as a line of JSON; None: the service has no such event."""
    kind = event.type
    if kind in _UNKNOWN_THERE or kind.startswith("x."):
        return None
    if isinstance(event, ErrorEvent):
        return _error(event).to_json()
    if kind.endswith(".delta") and kind not in _RENAMED:
        return event.to_json()
    told = event.model_dump(mode="json")
    told["type"] = _RENAMED.get(kind, kind)
    if "session" in told:
        told["session"] = _session(told["session"])
    if "response" in told:
        told["response"] = _response(told["response"])
    if "item" in told:
        told["item"] = _item(told["item"])
    return json.dumps(told, ensure_ascii=False)


def _error(event: ErrorEvent) -> ErrorEvent:
    """The same of what the client calls it."""
    error = event.error
    if error.param is None:
        return event
    for pattern, name in _PARAMS:
        told = pattern.sub(name, error.param)
        if told != error.param:
            message = error.message.replace(f"'{error.param}'", f"'{told}'")
            changed = error.model_copy(update={"param": told, "message": message})
            return event.model_copy(update={"error": changed})
    return event


def finished() -> str:
    """The answer to `session.finish`."""
    return json.dumps({"type": "session.finished", "event_id": new_event_id()})


def _session(view: _Event) -> _Event:
    audio_in, audio_out = view["audio"]["input"], view["audio"]["output"]
    return {
        "object": view["object"],
        "id": view["id"],
        "model": view["model"],
        "modalities": _modalities(view["output_modalities"]),
        "instructions": view["instructions"],
        "voice": audio_out["voice"],
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm24",
        "audio": {
            "input": {"format": _format(audio_in["format"])},
            "output": {"format": _format(audio_out["format"])},
        },
        "input_audio_transcription": audio_in["transcription"],
        "turn_detection": audio_in["turn_detection"],
        "tools": [_nested_tool(tool) for tool in view["tools"]],
        "tool_choice": view["tool_choice"],
        "max_tokens": view["max_output_tokens"],
        **(view.get("x_sampling") or {}),
    }


def _format(view: _Event) -> _Event:
    return {"type": view["type"].removeprefix("audio/"), "sample_rate": view.get("rate")}


def _nested_tool(tool: _Event) -> _Event:
    if tool["type"] != "function":  # an MCP server, which the service does not know
        return tool
    function = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": function}


def _response(view: _Event) -> _Event:
    told = dict(view)
    told["modalities"] = _modalities(told.pop("output_modalities"))
    told["voice"] = told.pop("audio")["output"]["voice"]
    told["output"] = [_item(item) for item in told["output"]]
    return told


def _modalities(output: list[str]) -> list[str]:
    return ["text"] if output == ["text"] else ["text", "audio"]


def _item(item: _Event) -> _Event:
    content = [
        {**part, "type": _PARTS.get(part["type"], part["type"])} for part in item.get("content", [])
    ]
    return {**item, "content": content} if "content" in item else item
