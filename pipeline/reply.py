"""One reply as a record: what was asked for, what came, and how its text lies along its voice.

No behaviour of its own; `pipeline.replies` drives it. All samples are those that a listener gets,
at the reply's speed, but where it says that they are the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.engine_port import Response
from pipeline.events import TurnMetrics
from pipeline.items import Item, TextContent, VoiceContent
from pipeline.messages import (
    ENGINE_OUTPUT_HZ,
    AudioDelta,
    Message,
    Pcm16,
    ResponseOptions,
    Stages,
    Usage,
)
from pipeline.session_config import SessionConfig
from pipeline.time_stretch import TimeStretch

SAMPLES_PER_MS = ENGINE_OUTPUT_HZ // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnd:
    """The end of the user's turn that a reply answers.

    `speech_end_s`: the true end of speech on the session's clock; `turn_end_ms`: how much later, on
    the input, the turn detector said so (None where the turn was ended by hand).
    """

    speech_end_s: float
    turn_end_ms: float | None


@dataclass(slots=True, kw_only=True)
class Reply:
    """A reply under way or done.

    `config` is what holds for this reply alone, None: the session's; `messages` what it answers,
    None: the conversation; `anchor_id` is the item that it follows (the last one when an engine
    took it on); `item` is what it says or writes, `calls` its tool calls by their numbers;
    `num_samples` is the length of its speech so far; `alignment` holds (samples so far, characters
    spoken by then) for each codec frame; `max_heard_samples` is set once the reply was cut: no
    more than that can have been heard; `told` is what an engine was told last of what was heard:
    (generation of the log, samples).
    """

    id: str
    options: ResponseOptions
    turn_end: TurnEnd | None
    config: SessionConfig | None = None
    messages: tuple[Message, ...] | None = None
    anchor_id: str | None = None
    item: Item | None = None
    calls: dict[int, Item] = field(default_factory=dict)
    speed: float = 1.0
    num_samples: int = 0
    response: Response | None = None
    generation: int = 0
    text: str = ""
    alignment: list[tuple[int, int]] = field(default_factory=list)
    first_audio_s: float | None = None
    is_settled: bool = False
    is_complete: bool = False
    max_heard_samples: int | None = None
    told: tuple[int, int] | None = None
    num_text_deltas: int = 0
    underruns_before: int = 0
    _num_made: int = 0
    _stretch: TimeStretch = field(init=False)

    def __post_init__(self) -> None:
        self._stretch = TimeStretch(self.speed)

    @property
    def last_item_id(self) -> str | None:
        """The item behind which its next one stands."""
        if self.calls:
            return next(reversed(self.calls.values())).id
        return self.item.id if self.item is not None else self.anchor_id

    @property
    def voice(self) -> VoiceContent | None:
        """Its spoken content; None for a text reply, or before the first output."""
        content = self.item.content[0] if self.item is not None and self.item.content else None
        return content if isinstance(content, VoiceContent) else None

    def usage_so_far(self) -> Usage:
        """Of a reply that was stopped before the engine counted: what came out of it."""
        return Usage(
            output_text_tokens=self.num_text_deltas, output_audio_tokens=len(self.alignment)
        )

    def add_text(self, text: str) -> None:
        """More text; the item's follows."""
        self.text += text
        self.num_text_deltas += 1
        self.show_text(self.text)

    def add_audio(self, delta: AudioDelta) -> Pcm16:
        """More speech; the item's follows. Returns what is ready to be played, perhaps nothing."""
        self._num_made += len(delta.pcm)
        self.alignment.append((round(self._num_made / self.speed), delta.spoken_chars))
        return self._add(self._stretch.push(delta.pcm))

    def end_audio(self) -> Pcm16:
        """The rest of the speech, where a change of speed has held some back."""
        return self._add(self._stretch.flush())

    def _add(self, pcm: Pcm16) -> Pcm16:
        self.num_samples += len(pcm)
        if self.voice is not None and len(pcm):
            self.voice.pcm.append(pcm)
        return pcm

    def made_samples(self, num_samples: int) -> int:
        """How many of the engine's samples the first `num_samples` are."""
        return min(self._num_made, round(num_samples * self.speed))

    def show_text(self, text: str) -> None:
        """Let the item say this."""
        content = self.item.content[0] if self.item is not None else None
        if isinstance(content, VoiceContent):
            content.transcript = text
        elif isinstance(content, TextContent):
            content.text = text

    def cut_audio(self, num_samples: int) -> None:
        """Drop the item's samples behind the first `num_samples`."""
        if self.voice is None:
            return
        kept = []
        for chunk in self.voice.pcm:
            kept.append(chunk[:num_samples])
            num_samples -= len(kept[-1])
        self.voice.pcm = [chunk for chunk in kept if len(chunk)]

    def text_heard(self, num_samples: int) -> str:
        """The text spoken within the first samples, whole words only (an estimate.

        The talker reads ahead).
        """
        if self.is_complete and num_samples >= self.num_samples:
            return self.text
        spoken = max((chars for end, chars in self.alignment if end <= num_samples), default=0)
        for end in range(min(spoken, len(self.text)), 0, -1):
            if end == len(self.text) or not self.text[end].isalnum():
                return self.text[:end]
        return ""

    def estimate_played(self, now_s: float) -> int:
        """How much a listener has heard who began to play at the first sample and never paused."""
        if self.first_audio_s is None:
            return 0
        return min(self.num_samples, round((now_s - self.first_audio_s) * ENGINE_OUTPUT_HZ))

    def metrics(self, stages: Stages, *, num_underruns: int) -> TurnMetrics:
        """Where its milliseconds went; `num_underruns`: of its output, all together."""
        turn_end, first_audio_ms = self.turn_end, None
        if turn_end is not None and self.first_audio_s is not None:
            first_audio_ms = (self.first_audio_s - turn_end.speech_end_s) * 1000
        return TurnMetrics(
            response_id=self.id,
            turn_end_ms=turn_end.turn_end_ms if turn_end else None,
            engine=stages,
            first_audio_ms=first_audio_ms,
            num_underruns=num_underruns - self.underruns_before,
        )
