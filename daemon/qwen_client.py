"""Client events of the hosted Qwen-Omni-Realtime service, in the words of the Realtime protocol.

The same envelope with other names: what the service calls `modalities` or `input_audio_format` is
nested here. Values are not judged, only moved: `daemon.protocol` does that, and
`daemon.qwen_server` gives its errors the service's names. What this server can not do (search,
translation) is refused by name; of the sampling parameters those that it has not are checked and
ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.protocol import ProtocolError

INPUT_RATE_HZ = 16_000
OUTPUT_RATE_HZ = 24_000

_Event = dict[str, Any]

_SAME = {"instructions", "tool_choice", "type", "id", "object", "model"}
_IGNORED = {"smooth_output", "video", "sample_rate"}
_IGNORED_NUMBERS = {"top_k", "repetition_penalty", "presence_penalty"}
_SILENCE_MS = (200, 6_000)
_REFUSED = {"enable_search": "Search", "search_options": "Search", "translation": "Translation"}
_PCM = ("pcm", "pcm16", "pcm24")


def defaults() -> _Event:
    """What a session of the service begins with, where this server's begins otherwise."""
    return {
        "type": "realtime",
        "audio": {
            "input": {
                "format": _pcm(INPUT_RATE_HZ),
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 800},
            },
            "output": {"format": _pcm(OUTPUT_RATE_HZ)},
        },
    }


def translated(event: _Event) -> _Event:
    """One client event.

    Raises:
        ProtocolError: it asks for what is not served, or has a shape that can not be translated.
    """
    kind = event.get("type")
    if kind == "session.update" and isinstance(event.get("session"), dict):
        return {**event, "session": session_patch(event["session"])}
    if kind == "response.create" and isinstance(event.get("response"), dict):
        return {**event, "response": _response(event["response"])}
    return event


def session_patch(given: _Event) -> _Event:
    """The `session` of `session.update`."""
    patch: _Event = {"type": "realtime"}
    for key, value in given.items():
        if key in _REFUSED and value:
            raise ProtocolError(f"{_REFUSED[key]} is not served here.", param=f"session.{key}")
        if key in _SAME:
            patch[key] = value
        elif key in _MOVED:
            _MOVED[key](patch, value)
        elif key in _IGNORED_NUMBERS:
            if type(value) not in (int, float, type(None)):
                raise ProtocolError("should be a number", param=f"session.{key}")
        elif key not in _IGNORED and key not in _REFUSED:
            raise ProtocolError(
                f"Unknown parameter: 'session.{key[:80]}'.",
                code="unknown_parameter",
                param=f"session.{key[:80]}",
            )
    rate_hz = given.get("sample_rate")
    if rate_hz is not None:
        _side(patch, "input")["format"] = _pcm(rate_hz)
    return patch


def _modalities(value: Any, param: str) -> list[str]:
    if value == ["text"]:
        return ["text"]
    if isinstance(value, list) and len(value) == 2 and set(map(str, value)) == {"text", "audio"}:
        return ["audio"]
    raise ProtocolError("should be ['text'] or ['text', 'audio']", param=param)


def _set_modalities(patch: _Event, value: Any) -> None:
    patch["output_modalities"] = _modalities(value, "session.modalities")


def _set_voice(patch: _Event, value: Any) -> None:
    if value is not None:
        _side(patch, "output")["voice"] = value


def _set_transcription(patch: _Event, value: Any) -> None:
    if isinstance(value, dict):
        value = {key: value[key] for key in ("model", "language") if value.get(key) is not None}
    _side(patch, "input")["transcription"] = value


def _set_turn_detection(patch: _Event, value: Any) -> None:
    if isinstance(value, dict):
        value = dict(value)
        if value.get("type") == "semantic_vad":
            for key in ("threshold", "silence_duration_ms", "prefix_padding_ms", "idle_timeout_ms"):
                value.pop(key, None)
        else:
            _check_silence(value.setdefault("silence_duration_ms", 800))
            threshold = value.get("threshold")
            if type(threshold) in (int, float) and -1 <= threshold < 0:
                value["threshold"] = 0  # the service's scale begins at -1: everything is speech
    _side(patch, "input")["turn_detection"] = value


def _check_silence(value: Any) -> None:
    low, high = _SILENCE_MS
    if type(value) is int and not low <= value <= high:
        raise ProtocolError(
            f"should be {low} to {high}",
            code=f"integer_{'below_min' if value < low else 'above_max'}_value",
            param="session.turn_detection.silence_duration_ms",
        )


def _sampling_setter(name: str) -> Callable[[_Event, Any], None]:
    def set_sampling(patch: _Event, value: Any) -> None:
        patch.setdefault("x_sampling", {})[name] = value

    return set_sampling


def _format_setter(side: str, rate_hz: int) -> Callable[[_Event, Any], None]:
    def set_format(patch: _Event, value: Any) -> None:
        if value not in _PCM:
            raise ProtocolError("should be 'pcm'", param=f"session.{side}_audio_format")
        _side(patch, side)["format"] = _pcm(rate_hz)

    return set_format


def _set_audio(patch: _Event, value: Any) -> None:
    for side, rate_hz in (("input", INPUT_RATE_HZ), ("output", OUTPUT_RATE_HZ)):
        given = value.get(side) if isinstance(value, dict) else None
        wanted = given.get("format") if isinstance(given, dict) else None
        if not isinstance(wanted, dict):
            continue
        if wanted.get("type") != "pcm":
            raise ProtocolError("should be 'pcm'", param=f"session.audio.{side}.format.type")
        _side(patch, side)["format"] = _pcm(wanted.get("sample_rate", rate_hz))


def _set_tools(patch: _Event, value: Any) -> None:
    if isinstance(value, list):
        value = [_flat_tool(tool) for tool in value]
    patch["tools"] = value


def _flat_tool(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return {"type": "function", **function} if isinstance(function, dict) else tool


def _set_max_tokens(patch: _Event, value: Any) -> None:
    patch["max_output_tokens"] = value


_MOVED: dict[str, Callable[[_Event, Any], None]] = {
    "modalities": _set_modalities,
    "voice": _set_voice,
    "input_audio_format": _format_setter("input", INPUT_RATE_HZ),
    "output_audio_format": _format_setter("output", OUTPUT_RATE_HZ),
    "audio": _set_audio,
    "input_audio_transcription": _set_transcription,
    "turn_detection": _set_turn_detection,
    "tools": _set_tools,
    "max_tokens": _set_max_tokens,
    **{name: _sampling_setter(name) for name in ("temperature", "top_p", "seed")},
}


def _response(given: _Event) -> _Event:
    """The `response` of `response.create`; what is null there is the session's."""
    asked = {key: value for key, value in given.items() if value is not None}
    if "modalities" in asked:
        asked["output_modalities"] = _modalities(asked.pop("modalities"), "response.modalities")
    if "voice" in asked:
        asked["audio"] = {"output": {"voice": asked.pop("voice")}}
    return asked


def _side(patch: _Event, side: str) -> _Event:
    audio: _Event = patch.setdefault("audio", {})
    found: _Event = audio.setdefault(side, {})
    return found


def _pcm(rate_hz: Any) -> _Event:
    return {"type": "audio/pcm", "rate": rate_hz}
