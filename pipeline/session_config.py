"""What a session's owner may choose, free of any wire format. Frozen: a change is a new value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.messages import ResponseOptions, ToolChoice

Eagerness = Literal["low", "medium", "high", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDetection:
    """Server-side turn detection by voice activity.

    `eagerness`: a judge decides how long silence must last (None: always `silence_duration_ms`).
    `tentative_ms`: from so much silence on a turn may be over: nothing behind it is handed to the
    model unless speech goes on (None: all of the silence is). `speculates`: a reply is begun then,
    unheard. `judges_interruptions`: speech over a reply first ducks it, and stops it only if it is
    an interruption.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None
    create_response: bool = True
    interrupt_response: bool = True
    eagerness: Eagerness | None = None
    tentative_ms: int | None = None
    speculates: bool = False
    judges_interruptions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseReduction:
    """That steady noise is taken out of what the microphone hears, by where it stands: close to the
    mouth, or in the room. `strength`: 1 is usual, more turns noise further down.
    """

    place: Literal["near_field", "far_field"]
    strength: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """That the user's speech is wanted as text, too. What helps the model: which languages it may
    be, words that may occur, and a hint in words of one's own.
    """

    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """What happens when the model's context is full: the oldest items leave it until
    `retention_ratio` of it is used. `post_instructions_tokens` is a smaller limit for all but the
    instructions and tools.
    """

    retention_ratio: float = 0.8
    post_instructions_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the text of replies is drawn; None: as the checkpoint's generation config says. With 0 as
    temperature or `top_p` the likeliest token is always taken.
    """

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def applied(self, options: ResponseOptions) -> ResponseOptions:
        """The options of a reply, drawn like this."""
        if 0 in (self.temperature, self.top_p):
            return replace(options, greedy=True, seed=self.seed)
        return replace(options, temperature=self.temperature, top_p=self.top_p, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Everything of a session that may change while it lives.

    `turn_detection` None means manual turns; `truncation` None: a full context fails replies;
    `tools` are JSON texts, one for each function; `speed` of the speech, above 1 is faster;
    `is_transcription`: speech is only written down and nobody replies. `max_text_chars` bounds the
    texts of all items together.
    """

    instructions: str
    voice: str | None = None
    output: Literal["audio", "text"] = "audio"
    speed: float = 1.0
    max_output_tokens: int | None = None
    truncation: Truncation | None = field(default_factory=Truncation)
    transcription: Transcription | None = None
    is_transcription: bool = False
    tools: tuple[str, ...] = ()
    tool_choice: ToolChoice = "auto"
    forced_tool: str | None = None
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    noise_reduction: NoiseReduction | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_text_chars: int = 2**20

    def response_options(self) -> ResponseOptions:
        """How a reply is made that nobody asks to be made otherwise."""
        options = ResponseOptions(
            audio=self.output == "audio",
            max_tokens=self.max_output_tokens,
            tool_choice=self.tool_choice if self.tools else "none",
            forced_tool=self.forced_tool if self.tools else None,
        )
        return self.sampling.applied(options)
