"""The session as the wire knows it: what a patch does to it, how it is shown, what the conversation
gets of it.

Frozen: a patch gives a new value or raises, so a refused update leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from daemon.protocol import (
    AudioFormatView,
    AudioView,
    InputView,
    OutputView,
    ProtocolError,
    ServerVad,
    SessionPatch,
    SessionView,
)
from daemon.protocol_mcp import McpTool, check_reachable
from daemon.protocol_session import (
    InputPatch,
    OutputPatch,
    RetentionRatio,
    SemanticVad,
    SessionType,
    TranscriptionAudioView,
    TranscriptionSessionView,
    TranscriptionView,
)
from daemon.protocol_tools import ForcedRemote, ForcedTool, FunctionTool
from daemon.remote_catalogue import RemoteFunction
from daemon.settings import McpSettings, Settings
from daemon.wire_listening import (
    detection_of_patch,
    detection_of_settings,
    reduction_of_patch,
    shown_detection,
    shown_reduction,
    transcription_of,
)
from daemon.wire_sampling import sampling_of_patch, shown_sampling
from daemon.wire_tools import ToolSet, own_functions
from daemon.wire_truncation import shown_truncation, truncation_of
from pipeline.session_config import NoiseReduction, Sampling, SessionConfig, TurnDetection

DEFAULT_VOICE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Voices:
    """Which names of voices are answered, and with which voice of the checkpoint (None: its own
    choice).
    """

    aliases: Mapping[str, str]
    available: Sequence[str]

    def resolve(self, name: str, *, param: str = "session.audio.output.voice") -> str | None:
        """The checkpoint's voice for a name.

        Raises:
            ProtocolError: neither a voice nor an alias.
        """
        for candidate in (name, self.aliases.get(name.lower(), "")):
            if candidate.lower() == DEFAULT_VOICE:
                return None
            for voice in self.available:
                if voice.lower() == candidate.lower():
                    return voice
        known = ", ".join([*self.available, DEFAULT_VOICE])
        raise ProtocolError(
            f"Voice '{name[:80]}' is not supported. There are: {known}.",
            param=param,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What goes on in a session, which not every change may disturb."""

    has_spoken: bool = False
    has_input: bool = False
    is_replying: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WireSession:
    """Everything of a session object that can differ from one session to the next, and `remote`:
    what the MCP servers among its tools have told to offer, under the names that the model sees.
    """

    id: str
    type: SessionType
    model: str
    expires_at: int
    x_ext: tuple[str, ...]
    instructions: str
    voice: str
    engine_voice: str | None
    output: Literal["audio", "text"]
    max_output_tokens: int | None
    tools: tuple[FunctionTool | McpTool, ...]
    remote: tuple[RemoteFunction, ...] = ()
    mcp: McpSettings
    tool_choice: str | ForcedTool | ForcedRemote
    tracing: Any
    truncation: str | RetentionRatio
    turn_detection: TurnDetection | None
    eagerness: str | None
    noise_reduction: NoiseReduction | None
    transcription: TranscriptionView | None
    input_format: AudioFormatView
    output_format: AudioFormatView
    speed: float
    sampling: Sampling
    default_turn_detection: TurnDetection
    max_text_chars: int

    @classmethod
    def begin(
        cls,
        settings: Settings,
        voices: Voices,
        *,
        session_id: str,
        session_type: SessionType,
        model: str,
        expires_at: int,
        x_ext: tuple[str, ...],
    ) -> WireSession:
        """A session as the settings want it."""
        turn_detection = detection_of_settings(settings.turn_detection)
        return cls(
            id=session_id,
            type=session_type,
            model=model,
            expires_at=expires_at,
            x_ext=x_ext,
            instructions=settings.session.instructions,
            voice=settings.session.voice,
            engine_voice=voices.resolve(settings.session.voice),
            output="audio",
            max_output_tokens=None,
            tools=(),
            mcp=settings.mcp,
            tool_choice="auto",
            tracing=None,
            truncation="auto",
            turn_detection=turn_detection,
            eagerness=turn_detection.eagerness,
            noise_reduction=None,
            transcription=TranscriptionView(model=model)
            if session_type == "transcription"
            else None,
            input_format=AudioFormatView(),
            output_format=AudioFormatView(),
            speed=1.0,
            sampling=Sampling(),
            default_turn_detection=turn_detection,
            max_text_chars=settings.limits.max_text_chars,
        )

    def patched(self, patch: SessionPatch, voices: Voices, moment: Moment) -> WireSession:
        """The session after a client's change; only present fields change. What it calls the model
        was settled when the session began: the served one answers to any name.

        Raises:
            ProtocolError: a value that does not fit; nothing changes.
        """
        if patch.type != self.type:
            raise ProtocolError("The type of a session can not change.", param="session.type")
        changes: dict[str, Any] = {}
        if patch.instructions is not None:
            changes["instructions"] = patch.instructions
        if patch.output_modalities is not None:
            changes["output"] = patch.output_modalities[0]
        if "max_output_tokens" in patch.model_fields_set:
            changes["max_output_tokens"] = _tokens(patch.max_output_tokens)
        if patch.truncation is not None:
            changes["truncation"] = patch.truncation
        changes |= self._tool_changes(patch)
        if "tracing" in patch.model_fields_set:
            if None not in (self.tracing, patch.tracing) and patch.tracing != self.tracing:
                raise ProtocolError(
                    "Tracing can not be modified once it is on.", param="session.tracing"
                )
            changes["tracing"] = patch.tracing
        if "x_sampling" in patch.model_fields_set:
            changes["sampling"] = sampling_of_patch(
                patch.x_sampling, self.sampling, is_allowed=bool(self.x_ext)
            )
        if patch.audio is not None:
            changes |= self._input_changes(patch.audio.input, moment)
            changes |= self._output_changes(patch.audio.output, voices, moment)
        return replace(self, **changes)

    def _tool_changes(self, patch: SessionPatch) -> dict[str, Any]:
        """Tools and choice may come in any order: whether they fit is asked by each response."""
        changes: dict[str, Any] = {}
        if patch.tools is not None:
            for index, tool in enumerate(patch.tools):
                if isinstance(tool, McpTool):
                    check_reachable(tool, self.mcp.hosts, param=f"session.tools[{index}]")
            changes["tools"] = tuple(patch.tools)
        if patch.tool_choice is not None:
            changes["tool_choice"] = patch.tool_choice
        return changes

    @property
    def tool_set(self) -> ToolSet:
        """All that the model may call."""
        return ToolSet(own_functions(self.tools), self.remote)

    def _input_changes(self, patch: InputPatch | None, moment: Moment) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if patch is None:
            return changes
        if patch.format is not None and (shown := patch.format.shown()) != self.input_format:
            if moment.has_input:
                raise ProtocolError(
                    "The format can not change while there is audio in the input buffer.",
                    param="session.audio.input.format",
                )
            changes["input_format"] = shown
        if "turn_detection" in patch.model_fields_set:
            wanted = self._of_kept_type(patch.turn_detection)
            detection = wanted and detection_of_patch(wanted, self.default_turn_detection)
            changes["turn_detection"] = detection
            changes["eagerness"] = detection and detection.eagerness
        if "transcription" in patch.model_fields_set:
            changes["transcription"] = patch.transcription and TranscriptionView(
                model=patch.transcription.model or self.model,
                language=patch.transcription.language,
                prompt=patch.transcription.prompt,
                languages=patch.transcription.languages or None,
                keywords=patch.transcription.keywords or None,
                delay=patch.transcription.delay,
            )
        if "noise_reduction" in patch.model_fields_set:
            changes["noise_reduction"] = reduction_of_patch(
                patch.noise_reduction, self.noise_reduction
            )
        return changes

    def _of_kept_type(
        self, wanted: ServerVad | SemanticVad | None
    ) -> ServerVad | SemanticVad | None:
        """Turn detection that names no type keeps the type that there is, where its fields fit."""
        if not isinstance(wanted, ServerVad) or "type" in wanted.model_fields_set:
            return wanted
        named = wanted.model_dump(exclude_unset=True)
        if self.eagerness is None or not set(named) <= set(SemanticVad.model_fields):
            return wanted
        return SemanticVad(type="semantic_vad", **{"eagerness": self.eagerness, **named})

    def _output_changes(
        self, patch: OutputPatch | None, voices: Voices, moment: Moment
    ) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if patch is None:
            return changes
        if patch.speed is not None:
            changes["speed"] = float(patch.speed)
        if patch.format is not None and (shown := patch.format.shown()) != self.output_format:
            if moment.is_replying:
                raise ProtocolError(
                    "The format can not change while a response is in progress.",
                    param="session.audio.output.format",
                )
            changes["output_format"] = shown
        return changes | self._voice_changes(patch.voice, voices, moment)

    def _voice_changes(self, name: str | None, voices: Voices, moment: Moment) -> dict[str, Any]:
        if name is None or name == self.voice:
            return {}
        engine_voice = voices.resolve(name)
        if moment.has_spoken and engine_voice != self.engine_voice:
            raise ProtocolError(
                "Cannot update a conversation's voice if assistant audio is present.",
                code="cannot_update_voice",
                param="session.audio.output.voice",
            )
        return {"voice": name, "engine_voice": engine_voice}

    def view(self) -> SessionView | TranscriptionSessionView:
        """The full effective configuration."""
        heard = InputView(
            format=self.input_format,
            transcription=self.transcription,
            noise_reduction=shown_reduction(self.noise_reduction),
            turn_detection=shown_detection(self.turn_detection, self.eagerness),
        )
        if self.type == "transcription":
            return TranscriptionSessionView(
                id=self.id,
                expires_at=self.expires_at,
                audio=TranscriptionAudioView(input=heard),
                include=None,
                x_ext=list(self.x_ext) or None,
            )
        choice = self.tool_choice
        audio = AudioView(
            input=heard,
            output=OutputView(format=self.output_format, voice=self.voice, speed=self.speed),
        )
        return SessionView(
            id=self.id,
            model=self.model,
            output_modalities=[self.output],
            instructions=self.instructions,
            tools=[tool.shown() for tool in self.tools],
            tool_choice=choice if isinstance(choice, str) else choice.model_dump(exclude_none=True),
            max_output_tokens=self.max_output_tokens or "inf",
            tracing=self.tracing,
            truncation=shown_truncation(self.truncation),
            prompt=None,
            expires_at=self.expires_at,
            audio=audio,
            include=None,
            x_ext=list(self.x_ext) or None,
            x_sampling=shown_sampling(self.sampling),
        )

    def config(self) -> SessionConfig:
        """What the conversation needs of it."""
        tools, choice = self.tool_set.terms(self.tool_choice)
        return SessionConfig(
            instructions=self.instructions,
            voice=self.engine_voice,
            output=self.output,
            speed=self.speed,
            truncation=truncation_of(self.truncation),
            max_output_tokens=self.max_output_tokens,
            turn_detection=self._detection(),
            noise_reduction=self.noise_reduction,
            transcription=transcription_of(self.transcription),
            sampling=self.sampling,
            is_transcription=self.type == "transcription",
            tools=tools,
            max_text_chars=self.max_text_chars,
            **choice,
        )

    def _detection(self) -> TurnDetection | None:
        """As the conversation wants it: where nobody replies, turns lead to nothing."""
        if self.turn_detection is None or self.type == "realtime":
            return self.turn_detection
        return replace(
            self.turn_detection,
            idle_timeout_ms=None,
            create_response=False,
            interrupt_response=False,
            speculates=False,
        )


def _tokens(value: int | str | None) -> int | None:
    return value if isinstance(value, int) else None
