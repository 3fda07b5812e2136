"""The turn machine: speech probabilities with media positions in, edges of speech out.

No clock, no I/O.

Everything is counted in samples at 16 kHz of the session's input, so sound that arrives faster
than real time is cut into the same turns. Speech starts when the probability has stayed up for
`min_speech_ms` and is back-dated to its first window less the prefix padding; it stops after
`silence_duration_ms` below the lower threshold.

With `tentative_ms` there is a step between: after so much silence the turn is tentatively over, and
whoever judges that may say how long to wait (`expect`). Speech above the upper threshold takes it
back, else the turn ends, back-dated to the tentative end.

Echo guard: while the session's own voice comes out of a loudspeaker (`is_guarded`), what returns
through the microphone must not count as the user. Browsers cancel most of it; what is left is weak
and choppy. So the threshold is raised and speech must last longer before it starts a turn. It
delays a true interruption by the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.messages import ENGINE_INPUT_HZ
from pipeline.session_config import TurnDetection

SAMPLES_PER_MS = ENGINE_INPUT_HZ // 1000
HYSTERESIS = 0.15  # the usual distance of silero's two thresholds
MIN_THRESHOLD = 0.01
MAX_THRESHOLD = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStart:
    """A turn began; `at_sample` is the first sample that belongs to it, prefix padding included."""

    at_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStop:
    """A turn ended.

    `at_sample` is its end, `speech_end_sample` that of its last window of speech.
    """

    at_sample: int
    speech_end_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TentativeStop:
    """The turn may be over. Positions as of `SpeechStop`."""

    at_sample: int
    speech_end_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechResume:
    """It was not: the user goes on."""


Edge = SpeechStart | TentativeStop | SpeechResume | SpeechStop


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoGuard:
    """How much harder speech is to start while the session's own voice can be heard.

    `doubted_speech_ms`: in place of `min_speech_ms` where such speech is judged before it stops
    anything.
    """

    threshold_boost: float = 0.2
    min_speech_ms: int = 160
    doubted_speech_ms: int = 96

    def speech_ms(self, settings: TurnDetection) -> int:
        """How long speech must last before it counts."""
        return self.doubted_speech_ms if settings.judges_interruptions else self.min_speech_ms


class TurnMachine:
    """See the module's docstring.

    Args:
        min_speech_ms: how long the probability must stay up before speech starts (two windows of 32
            ms).
    """

    def __init__(
        self,
        settings: TurnDetection,
        *,
        min_speech_ms: int = 64,
        echo_guard: EchoGuard | None = None,
    ) -> None:
        self.settings = settings
        self._min_speech_ms = min_speech_ms
        self._echo_guard = echo_guard or EchoGuard()
        self._floor_sample = 0
        self._opened_sample = 0
        self._onset_sample: int | None = None
        self._speech_end_sample = 0
        self._is_speaking = False
        self._tentative_sample: int | None = None
        self._wait_ms: int | None = None

    @property
    def is_speaking(self) -> bool:
        """Whether a turn is open."""
        return self._is_speaking

    @property
    def is_tentative(self) -> bool:
        """Whether the open turn is tentatively over."""
        return self._tentative_sample is not None

    @property
    def speech_end_sample(self) -> int:
        """The end of the last window of speech of the open turn."""
        return self._speech_end_sample

    @property
    def onset_sample(self) -> int:
        """Where the first window of speech of the turn that opened last began."""
        return self._opened_sample

    def expect(self, wait_ms: int) -> None:
        """How much silence ends the turn that is tentatively over."""
        assert self._tentative_sample is not None
        self._wait_ms = wait_ms

    def configure(self, settings: TurnDetection) -> None:
        """Take other settings, at any time; an open turn stays open and ends by the new ones."""
        self.settings = settings

    def reset(self, at_sample: int) -> None:
        """Forget an open or beginning turn; a new one can not reach back before `at_sample`."""
        self._is_speaking = False
        self._onset_sample = None
        self._floor_sample = at_sample
        self._take_back()

    def feed(
        self,
        probability: float,
        *,
        start_sample: int,
        end_sample: int,
        is_guarded: bool = False,
    ) -> Edge | None:
        """Take the next window, [start_sample, end_sample).

        Returns the edge that it completes, if any.
        """
        if self._is_speaking:
            return self._continue(probability, end_sample)
        return self._listen(probability, start_sample, end_sample, is_guarded)

    def _listen(
        self, probability: float, start_sample: int, end_sample: int, is_guarded: bool
    ) -> SpeechStart | None:
        guard = self._echo_guard if is_guarded else None
        threshold = self.settings.threshold + (guard.threshold_boost if guard else 0.0)
        threshold = min(threshold, max(MAX_THRESHOLD, self.settings.threshold))
        if self._onset_sample is None:
            if probability < threshold:
                return None
            self._onset_sample = start_sample
        elif probability < _lower(threshold):
            self._onset_sample = None
            return None
        min_speech_ms = max(guard.speech_ms(self.settings) if guard else 0, self._min_speech_ms)
        if end_sample - self._onset_sample < min_speech_ms * SAMPLES_PER_MS:
            return None
        return self._start(self._onset_sample, end_sample)

    def _start(self, onset_sample: int, end_sample: int) -> SpeechStart:
        padded = onset_sample - self.settings.prefix_padding_ms * SAMPLES_PER_MS
        self._opened_sample = onset_sample
        self._onset_sample = None
        self._is_speaking = True
        self._speech_end_sample = end_sample
        return SpeechStart(at_sample=max(padded, self._floor_sample))

    def _continue(
        self, probability: float, end_sample: int
    ) -> TentativeStop | SpeechResume | SpeechStop | None:
        is_tentative = self._tentative_sample is not None
        threshold = self.settings.threshold
        if probability >= (threshold if is_tentative else _lower(threshold)):
            self._speech_end_sample = end_sample
            self._take_back()
            return SpeechResume() if is_tentative else None
        silence_ms = (end_sample - self._speech_end_sample) // SAMPLES_PER_MS
        first_ms = self.settings.tentative_ms
        if first_ms is not None and not is_tentative and silence_ms >= first_ms:
            self._tentative_sample = end_sample
            return TentativeStop(at_sample=end_sample, speech_end_sample=self._speech_end_sample)
        wait_ms = self.settings.silence_duration_ms if self._wait_ms is None else self._wait_ms
        if silence_ms < wait_ms:
            return None
        at_sample = end_sample if self._tentative_sample is None else self._tentative_sample
        stop = SpeechStop(at_sample=at_sample, speech_end_sample=self._speech_end_sample)
        self.reset(end_sample)
        return stop

    def _take_back(self) -> None:
        self._tentative_sample = None
        self._wait_ms = None


def _lower(threshold: float) -> float:
    return max(threshold - HYSTERESIS, MIN_THRESHOLD)
