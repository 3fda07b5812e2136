"""Settings of the daemon: `configs/default.toml`, overlaid by a file and by flags, as frozen
dataclasses.

The only place that reads the environment. Every key, its default, its unit and its reason stand in
the TOML file; the classes here only give them types. An unknown key or a value of another type is
an error that names it.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

# What a number may be where more is asked than not to be negative. Those of turn detection are the
# protocol's; the others would fail later, in a call or while listening.
_RANGES = {
    "server.port": (0, 65_535),
    "turn_detection.threshold": (0, 1),
    "turn_detection.prefix_padding_ms": (0, 5_000),
    "turn_detection.silence_duration_ms": (20, 10_000),
    "turn_detection.tentative_silence_ms": (64, 1_000),
    "websocket.ping_interval_s": (0.1, math.inf),
    "websocket.ping_timeout_s": (0.1, math.inf),
    "webrtc.camera_fps": (0.1, 60),
}


class SettingsError(Exception):
    """A setting is unknown or has a wrong value; the message names it."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where to listen, and whom to answer."""

    host: str
    port: int
    api_keys: tuple[str, ...] = field(repr=False)
    tls: Literal["off", "auto", "files"]
    tls_certificate: str
    tls_key: str
    insecure: bool
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    shutdown_s: float
    drain_s: float
    media_hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDevices:
    """Devices of the model's stages; "": the engine's."""

    thinker: str
    talker: str
    code2wav: str

    def named(self) -> dict[str, str]:
        """Those that are not the engine's."""
        return {stage: device for stage, device in asdict(self).items() if device}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which model, and on what."""

    model: str
    device: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    experts: Literal["full", "int8", "fp8", "int4"]
    num_threads: int
    runs_in: Literal["process", "thread"]
    stuck_after_s: float
    graphs: Literal["auto", "on", "off"]
    audio_window_s: int
    camera_window_s: int
    devices: StageDevices


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What a session starts with, and how many there may be."""

    instructions: str
    voice: str
    max_sessions: int
    max_duration_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDetectionSettings:
    """Turn detection of sessions that do not choose for themselves."""

    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    idle_timeout_ms: int
    create_response: bool
    interrupt_response: bool
    eagerness: Literal["off", "low", "medium", "high", "auto"]
    tentative_silence_ms: int
    speculate: bool
    judge_interruptions: bool
    smart_turn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds of what a client may send."""

    max_message_bytes: int
    max_append_bytes: int
    max_inbox_bytes: int
    max_outbox_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_sdp_bytes: int
    max_text_chars: int
    max_upload_bytes: int
    max_audio_s: float
    max_video_s: float
    max_sessions_per_key: int
    requests_per_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSettings:
    """Liveness of WebSocket connections."""

    ping_interval_s: float
    ping_timeout_s: float
    max_event_bytes: int
    resume_grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRtcSettings:
    """Media over WebRTC."""

    audio_receiver: Literal["adaptive", "aiortc"]
    max_microphone_ms: int
    connect_timeout_s: float
    vanish_timeout_s: float
    channel_grace_s: float
    camera_fps: float
    max_frame_side: int
    frame_side: int
    max_event_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class McpSettings:
    """Remote tools that the server calls for a session."""

    hosts: tuple[str, ...]
    timeout_s: float
    max_response_bytes: int
    max_output_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it; one attribute for each table of the file. `voices` maps names of clients to
    voices.
    """

    server: ServerSettings
    engine: EngineSettings
    session: SessionSettings
    turn_detection: TurnDetectionSettings
    limits: LimitSettings
    websocket: WebSocketSettings
    webrtc: WebRtcSettings
    mcp: McpSettings
    log: LogSettings
    voices: Mapping[str, str]


Tables = dict[str, dict[str, Any]]


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The effective settings.

    Args:
        config: a TOML file that overlays the defaults.
        overrides: values of flags by dotted key (`{"server.port": 80}`); None values are left out.

    Raises:
        SettingsError: the file can not be read, or a key is unknown or has a value of the wrong
            type.
    """
    tables = _defaults()
    if config is not None:
        _overlay(tables, _read(config), str(config))
    flags: Tables = {}
    for key, value in (overrides or {}).items():
        if value is not None:
            table, _, name = key.partition(".")
            flags.setdefault(table, {})[name] = value
    _overlay(tables, flags, "command line")
    settings = _build(tables)
    if not all(key.strip() for key in settings.server.api_keys):
        raise SettingsError("'server.api_keys' must not hold an empty key")
    env_key = os.environ.get("OMNID_API_KEY", "").strip()
    if env_key and env_key not in settings.server.api_keys:
        keys = (*settings.server.api_keys, env_key)
        settings = replace(settings, server=replace(settings.server, api_keys=keys))
    return settings


def cache_folder() -> Path:
    """The user's cache folder for omnid (not created)."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(base) if base else Path.home() / ".cache") / "omnid"


def _defaults() -> Tables:
    text = resources.files("configs").joinpath("default.toml").read_text("utf-8")
    return tomllib.loads(text)


def _read(path: Path) -> Tables:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error


def _overlay(base: Tables, upper: Mapping[str, Any], source: str) -> None:
    for table, values in upper.items():
        if table not in base:
            raise SettingsError(f"{source}: unknown setting '{table}'")
        if not isinstance(values, dict):
            raise SettingsError(f"{source}: '{table}' must be a table")
        for name, value in values.items():
            if table != "voices" and name not in base[table]:
                raise SettingsError(f"{source}: unknown setting '{table}.{name}'")
            if isinstance(base[table].get(name), dict):
                _overlay_inner(base[table][name], value, f"{table}.{name}", source)
            else:
                base[table][name] = value


def _overlay_inner(base: dict[str, Any], value: Any, table: str, source: str) -> None:
    """A table within a table."""
    if not isinstance(value, dict):
        raise SettingsError(f"{source}: '{table}' must be a table")
    for name in value:
        if name not in base:
            raise SettingsError(f"{source}: unknown setting '{table}.{name}'")
    base.update(value)


def _build(tables: Tables) -> Settings:
    hints = get_type_hints(Settings)
    parts: dict[str, Any] = {}
    for table in fields(Settings):
        values = tables[table.name]
        if table.name == "voices":
            parts["voices"] = {k.lower(): _typed(f"voices.{k}", v, str) for k, v in values.items()}
            continue
        parts[table.name] = _typed(table.name, values, hints[table.name])
    return Settings(**parts)


def _typed(key: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, or an error that names `key`."""
    if is_dataclass(kind):
        types = get_type_hints(kind)
        named = {name: _typed(f"{key}.{name}", v, types[name]) for name, v in value.items()}
        return cast("type[Any]", kind)(**named)
    if kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise SettingsError(f"'{key}' must be a list of strings")
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SettingsError(
                f"'{key}' must be one of {', '.join(get_args(kind))}, not {value!r}"
            )
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise SettingsError(f"'{key}' must be a {kind.__name__}, not {value!r}")
    if kind in (int, float):
        _check_number(key, value)
    return value


def _check_number(key: str, value: float) -> None:
    if key in _RANGES:
        low, high = _RANGES[key]
        if not low <= value <= high or not math.isfinite(value):
            wanted = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise SettingsError(f"'{key}' must be {wanted}, not {value!r}")
    elif not math.isfinite(value) or value < 0:
        raise SettingsError(f"'{key}' must be a number that is not negative, not {value!r}")
