"""One reply under way: the text sampled so far, its voice, and what of it had been spoken when.

Pure bookkeeping of one assistant turn; the engine decides when each half moves on. The thinker's
text runs ahead of the talker's voice, so where in the text the voice is must be estimated: by the
share of frames once the reply's length is known, by the usual pace before, each along the effort
that the characters take (`models.spoken_position`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from models.chat import IncrementalDetokenizer
from models.content import EndStatus, EngineEvent, ReplyOptions, Stages, Usage
from models.deadlines import PlayoutClock
from models.entries import ReplyEntry
from models.sampling import Sampler
from models.speaking import Voice
from models.spoken_position import SpokenText
from models.stops import StopSearch
from models.tool_calls import CallSplitter

FIRST_FRAME_GUARD = 75
FRAMES_PER_TOKEN_GUARD = 8
MAX_EQUAL_FRAMES = 38  # three seconds of one first code, or of near silence


@dataclass(slots=True, kw_only=True)
class Pace:
    """Codec frames per unit of effort, which is about a character, learnt from the replies that
    were spoken to their end.

    Starts at 12.5 frames a second and 15 characters a second, usual for English.
    """

    frames_per_char: float = 12.5 / 15

    def learn(self, num_frames: int, effort: float) -> None:
        """Take in a finished reply."""
        if num_frames and effort:
            self.frames_per_char += 0.2 * (num_frames / effort - self.frames_per_char)


@dataclass(slots=True, kw_only=True, eq=False)
class Reply:
    """State of one reply.

    Attributes:
        tools: tells the tokens of tool calls from those that are shown and spoken.
        may_call: whether it may call a tool; not after it called one that there is not.
        untold_ids: of a call of which it is not known yet whether there is such a tool.
        stops: ends the text where the caller wants it to.
        script_ids: tokens of a text that is given, not sampled; None: it is sampled.
        text_ids: sampled tokens without the end token. is_text_done: no more will come.
        char_ends: length of the visible text after each token.
        num_clear_ids: tokens that surely belong to the text, whatever a stop may take away.
        voice: the talker's half; None for a text reply or before its first token is known.
        playout: what the listener has of the voice; stands while the reply is unconfirmed.
        held: events kept back while the reply is unconfirmed; None once it is confirmed.
        frame_ends: samples at 24 kHz after each frame.
    """

    id: int
    context: int
    entry: ReplyEntry
    options: ReplyOptions
    max_tokens: int
    text_sampler: Sampler
    detokenizer: IncrementalDetokenizer
    pace: Pace
    wants_voice: bool
    started_s: float
    tools: CallSplitter
    stops: StopSearch
    may_call: bool = True
    untold_ids: list[int] = field(default_factory=list)
    script_ids: list[int] | None = None
    playout: PlayoutClock = field(default_factory=PlayoutClock)
    held: list[EngineEvent] | None = None
    stages: Stages = field(default_factory=Stages)
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    spoken_text: SpokenText = field(default_factory=SpokenText)
    text_ids: list[int] = field(default_factory=list)
    char_ends: list[int] = field(default_factory=list)
    num_clear_ids: int = 0
    num_spoken_ids: int | None = None
    is_text_done: bool = False
    was_cut: bool = False
    voice: Voice | None = None
    is_voice_done: bool = False
    frame_ends: list[int] = field(default_factory=list)
    last_code: int | None = None
    num_equal_codes: int = 0
    num_quiet_frames: int = 0
    status: EndStatus | None = None

    @property
    def is_active(self) -> bool:
        return self.status is None

    @property
    def is_awaited(self) -> bool:
        """Whether a confirmed reply has not been heard or seen yet."""
        has_begun = bool(self.frame_ends) if self.wants_voice else bool(self.text_ids)
        return self.held is None and not has_begun

    @property
    def num_samples(self) -> int:
        """Speech made so far, 24 kHz."""
        return self.frame_ends[-1] if self.frame_ends else 0

    # ------------------------------------------------------------------ text
    def add_token(self, token: int) -> str:
        """Take a sampled token; returns the text that became visible."""
        self.text_ids.append(token)
        delta = ""
        if self.tools.takes(token):
            if self.num_spoken_ids is None:
                self.num_spoken_ids = len(self.text_ids) - 1
                delta = self.stops.push(self.detokenizer.flush()) + self.stops.flush()
        else:
            delta = self.stops.push(self.detokenizer.push(token))
        self.text += delta
        self.char_ends.append(len(self.text))
        if self.stops.is_hit and self.num_spoken_ids is None:
            self.num_spoken_ids = self._num_shown_ids()
        if not self.stops.is_holding:
            self.num_clear_ids = len(self.text_ids)
        return delta

    def take_back_call(self) -> int:
        """Forget the call of a tool that was not offered, and make no other; returns how many
        tokens that were.
        """
        count = self.tools.take_back()
        del self.text_ids[-count:], self.char_ends[-count:]
        self.untold_ids.clear()
        if self.num_spoken_ids == len(self.text_ids):
            self.num_spoken_ids = None
        self.num_clear_ids = min(self.num_clear_ids, len(self.text_ids))
        self.may_call = False
        return count

    def _num_shown_ids(self) -> int:
        """Tokens of which at least a character is shown, and those before them."""
        if not self.text:
            return 0
        return 1 + next(i for i, end in enumerate(self.char_ends) if end == len(self.text))

    def end_text(self, *, was_cut: bool) -> str:
        """No more tokens; returns text that had been waiting for the rest of a character."""
        self.is_text_done, self.was_cut = True, was_cut
        delta = self.stops.push(self.detokenizer.flush()) + self.stops.flush()
        self.num_clear_ids = len(self.text_ids)
        self.text += delta
        if self.char_ends:
            self.char_ends[-1] = len(self.text)
        return delta

    @property
    def spoken_ids(self) -> list[int]:
        """The tokens that the voice reads: none of a tool call or a stop or behind them, and not
        the one at which a reply was cut off.
        """
        if self.num_spoken_ids is not None:
            return self.text_ids[: self.num_spoken_ids]
        return self.text_ids[:-1] if self.was_cut else self.text_ids[: self.num_clear_ids]

    @property
    def is_script_done(self) -> bool:
        """Whether the voice will surely get no more to read."""
        is_call_settled = self.num_spoken_ids is not None and self.tools.is_settled
        return self.is_text_done or is_call_settled

    # ------------------------------------------------------------------ voice
    @property
    def can_speak(self) -> bool:
        """Whether the next codec frame can be made: the text token that it reads is known."""
        if not self.wants_voice or self.is_voice_done:
            return False
        if self.voice is None:
            return bool(self.spoken_ids)
        return self.is_script_done or self.voice.num_frames < len(self.spoken_ids)

    @property
    def next_to_speak(self) -> int | None:
        """The text token that the next codec frame reads; None: the text is over."""
        spoken = self.spoken_ids
        place = 0 if self.voice is None else self.voice.num_frames
        return spoken[place] if place < len(spoken) else None

    def watch(self, first_code: int, *, is_quiet: bool) -> None:
        """Count how long the voice has been stuck on one sound, or silent."""
        self.num_equal_codes = self.num_equal_codes + 1 if first_code == self.last_code else 0
        self.num_quiet_frames = self.num_quiet_frames + 1 if is_quiet else 0
        self.last_code = first_code

    @property
    def is_over_budget(self) -> bool:
        """A guard against a voice that never ends."""
        if max(self.num_equal_codes, self.num_quiet_frames) >= MAX_EQUAL_FRAMES:
            return True
        frames = len(self.frame_ends)
        budget = FRAMES_PER_TOKEN_GUARD * len(self.spoken_ids) + FIRST_FRAME_GUARD
        return self.is_script_done and frames >= budget

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to make."""
        is_silent = not self.wants_voice or not self.spoken_ids
        return self.is_text_done and (self.is_voice_done or is_silent)

    # ------------------------------------------------------------------ what was heard
    def spoken_chars(self, num_samples: int) -> int:
        """Estimated characters of the text that are over after so much of the speech."""
        self.spoken_text.grow(self.text)
        frames_per_char = self.pace.frames_per_char
        if self.is_script_done:
            own = len(self.frame_ends) / max(1.0, self.spoken_text.effort)
            # a voice that is not done by now is slower than usual
            frames_per_char = own if self.is_voice_done else max(own, frames_per_char)
        return self.spoken_text.chars_at(self._frames_at(num_samples) / max(1e-6, frames_per_char))

    def _frames_at(self, num_samples: int) -> float:
        """Frames, and the part of one, in so much of the speech."""
        num_whole = bisect_right(self.frame_ends, num_samples)
        if num_whole == len(self.frame_ends):
            return num_whole
        begin = self.frame_ends[num_whole - 1] if num_whole else 0
        return num_whole + (num_samples - begin) / (self.frame_ends[num_whole] - begin)

    def tokens_heard(self, num_samples: int) -> int:
        """How many tokens stay when `num_samples` of the speech were played: whole words only."""
        if num_samples <= 0:
            return 0
        if num_samples >= self.num_samples and self.is_finished:
            return len(self.text_ids)
        spoken = self.spoken_chars(num_samples) + 1  # whose sound has begun is heard
        kept = 0
        for count, end in enumerate(self.char_ends, start=1):
            if end > spoken:
                break
            if self._is_word_end(end):
                kept = count
        return kept

    def _is_word_end(self, index: int) -> bool:
        """Whether cutting the text here cuts no word."""
        around = self.text[max(0, index - 1) : index + 1]
        return index == len(self.text) or not around.isalnum()

    def text_of(self, num_tokens: int) -> str:
        """The visible text of the first tokens."""
        return self.text[: self.char_ends[num_tokens - 1]] if num_tokens else ""
