"""One session's context: the log of appends, the token log made of it, and the caches that hold its
prefix.

Appends are kept in order as entries; `place` brings what is encoded into the token log, strictly in
order and never past a reply that is still being made; `prefill` brings the log into the caches. A
mark is a place in the log of appends. Cutting back truncates log and caches exactly; entries behind
a cut are placed again from the pieces they already have. What is encoded when is
`models.encoding`'s and the engine's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from models.cache import SequenceCache
from models.chat import ChatFormat
from models.content import Pcm
from models.entries import Entry, MessageEntry, Placement, ReplyEntry, SpeechEntry
from models.errors import ContextFullError, ModelError, RequestError
from models.layout import Layout
from models.pieces import Piece, TokenLog
from models.qwen3_omni.mel import SILENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in the log of appends; the counts speak of a last entry that is speech."""

    num_entries: int
    is_open: bool = False
    num_samples: int = 0
    num_frames: int = 0


class Context:
    """See the module's docstring.

    Args:
        voice: codec id of the speaker; None where the checkpoint has no speech.
        thinker_cache, talker_cache: this context's own, empty.
        max_tokens: longest log; an append beyond it is refused.
    """

    def __init__(
        self,
        *,
        chat: ChatFormat,
        voice: int | None,
        thinker_cache: SequenceCache,
        talker_cache: SequenceCache | None,
        max_tokens: int,
    ) -> None:
        self.chat = chat
        self.voice = voice
        self.tool_names: frozenset[str] = frozenset()
        self.thinker_cache = thinker_cache
        self.talker_cache = talker_cache
        self.max_tokens = max_tokens
        self.log = TokenLog()
        self.entries: list[Entry] = []
        self.marks: dict[int, Mark] = {}
        self.active_reply: ReplyEntry | None = None
        self.last_hidden: Tensor | None = None
        self.is_resting = False  # its caches were given up, and are not filled until it is used
        self.fault: ModelError | None = None  # why a message since the last reply was left out
        self.question: tuple[int, Pcm] | None = None  # whose words are wanted
        self._num_placed = 0
        self._next = 0.0
        self._talker_next = 0.0
        self._replay_from: int | None = None

    # ------------------------------------------------------------------ appends
    def append(self, entry: Entry) -> None:
        """Take an entry behind all others."""
        if (speech := self.open_speech) is not None and entry is not speech:
            raise RequestError("speech is still open: end it before the next message")
        self.entries.append(entry)

    @property
    def open_speech(self) -> SpeechEntry | None:
        """The spoken message that is still being appended to."""
        last = self.entries[-1] if self.entries else None
        return last if isinstance(last, SpeechEntry) and not last.is_closed else None

    @property
    def speech_floor(self) -> float:
        """Raw log-mel level of the speech so far, so that silence before speech stays quiet."""
        spoken = (e for e in self.entries if isinstance(e, SpeechEntry) and e.is_complete)
        return max((e.mel.peak for e in spoken if e.mel is not None), default=SILENCE)

    def set_mark(self, mark: int) -> None:
        """Remember the present end of the log of appends."""
        last = self.entries[-1] if self.entries else None
        speech = last if isinstance(last, SpeechEntry) else None
        self.marks[mark] = Mark(
            num_entries=len(self.entries),
            is_open=self.open_speech is not None,
            num_samples=speech.num_samples if speech else 0,
            num_frames=len(speech.frames) if speech else 0,
        )

    def rollback(self, mark: int, *, window_frames: Callable[[bool], int]) -> None:
        """Cut the appends back to a mark; `window_frames`: attention window of open speech, with a
        camera or without.
        """
        place = self.marks.get(mark)
        if place is None or place.num_entries > len(self.entries):
            raise RequestError(f"mark {mark} is unknown or was itself cut off")
        if (
            self.active_reply is not None
            and self.entries.index(self.active_reply) >= place.num_entries
        ):
            raise RequestError("a reply behind the mark is active: cancel it first")
        self._drop_entries(place.num_entries)
        self.fault = None
        last = self.entries[-1] if self.entries else None
        if isinstance(last, SpeechEntry) and place.is_open:
            self._cut_speech(last, place, window_frames(last.has_camera))
        self.marks = {
            key: value for key, value in self.marks.items() if not _is_behind(value, place)
        }

    def _cut_speech(self, speech: SpeechEntry, place: Mark, window_frames: int) -> None:
        final = speech.num_final_windows(window_frames, place.num_samples)
        speech.cut(place.num_samples, place.num_frames, final)
        where = speech.placement
        if where is None:
            return
        kept = min(where.num_pieces, len(speech.pieces))
        where.num_pieces = kept
        self._truncate(where.start + _close_length(where) + _tokens(speech.pieces[:kept]))
        self._num_placed = min(self._num_placed, self.entries.index(speech))

    def replace_system(self, entry: MessageEntry | None) -> None:
        """Put another system message (or none) in front; everything behind it is placed again."""
        old = self.entries[0] if self.entries and _is_system(self.entries[0]) else None
        if _same_message(old, entry):
            return
        has_system = old is not None
        self.entries[: 1 if has_system else 0] = [] if entry is None else [entry]
        shift = (entry is not None) - has_system
        self.marks = {
            key: replace(value, num_entries=value.num_entries + shift)
            for key, value in self.marks.items()
        }
        self._num_placed = max(0, self._num_placed + shift)  # a reply may go on meanwhile
        self.request_replay(0)

    def keep_reply(self, entry: ReplyEntry, num_kept: int | None) -> None:
        """Let only the first `num_kept` tokens of a reply stay (None: all)."""
        if entry.num_kept == num_kept or entry not in self.entries:
            return
        entry.num_kept = num_kept
        self.request_replay(self.entries.index(entry))

    def take_back(self, num_tokens: int) -> None:
        """Take the last tokens of the reply that is being made out of the log and the thinker's
        cache. The token before them is fed again, as the one after it has to be drawn anew.
        """
        entry = self.active_reply
        assert entry is not None
        assert entry.placement is not None
        del entry.pieces[len(entry.pieces) - num_tokens :]
        entry.layout.next -= num_tokens
        entry.placement.num_pieces = len(entry.pieces)
        kept = len(self.log) - num_tokens
        if kept - 1 < self.thinker_cache.length:
            self.thinker_cache.truncate(kept - 1)
        self.log.truncate(kept)
        self.last_hidden = None

    def void_failed(self) -> Entry | None:
        """Let the first entry that could not be encoded or placed count as nothing; returns it."""
        for entry in self.entries[self._num_placed :]:
            if not entry.is_complete or not self.is_placed(entry):
                self._void(entry)
                return entry
        return None

    def _void(self, entry: Entry) -> None:
        was_placed = entry.placement is not None
        entry.pieces.clear()
        entry.is_complete = True
        if isinstance(entry, SpeechEntry):
            entry.void()
        if was_placed:
            self.request_replay(self.entries.index(entry))

    def clear(self) -> None:
        """Forget every append but the system message."""
        has_system = bool(self.entries) and _is_system(self.entries[0])
        self._drop_entries(int(has_system))
        self.fault = None
        self.marks.clear()

    def request_replay(self, index: int) -> None:
        """Place entries again from `index` on, as soon as no reply is active."""
        known = self._replay_from
        self._replay_from = index if known is None else min(index, known)

    # ------------------------------------------------------------------ placing
    def place(self) -> None:
        """Bring all that is encoded into the token log, in order.

        Raises:
            ResourceError: the log would grow past `max_tokens`; it is left as long as it was.
        """
        if self._replay_from is not None and self._may_replay:
            self._unplace(self._replay_from, is_replayed=True)
            self._replay_from = None
        while self._num_placed < len(self.entries):
            entry = self.entries[self._num_placed]
            self._place_entry(entry)
            if not entry.is_complete:
                return
            self._advance(entry)
            self._num_placed += 1

    @property
    def can_place(self) -> bool:
        """Whether `place` would change anything."""
        if self._replay_from is not None and self._may_replay:
            return True
        if self._num_placed == len(self.entries):
            return False
        entry = self.entries[self._num_placed]
        return entry.is_complete or not self.is_placed(entry)

    def is_placed(self, entry: Entry) -> bool:
        """Whether all that there is of an entry lies in the token log, where it belongs."""
        if self._replay_from is not None and self._may_replay:
            return False
        pieces = kept_pieces(entry)
        where = entry.placement
        return len(pieces) == (0 if where is None else where.num_pieces)

    @property
    def _may_replay(self) -> bool:
        """A reply that is already reading the log must not lose the ground under it."""
        return self.active_reply is None or self.active_reply.placement is None

    @property
    def cache_bytes(self) -> int:
        """Memory that the caches take."""
        talker = self.talker_cache
        return self.thinker_cache.num_bytes + (0 if talker is None else talker.num_bytes)

    def rest(self, num_tokens: int | None = None) -> None:
        """Give up the caches of the last `num_tokens` tokens (None: all); the log stays, from which
        prefill fills them again.
        """
        assert self.active_reply is None
        kept = 0 if num_tokens is None else max(0, self.thinker_cache.length - num_tokens)
        if kept:
            self._truncate_caches(kept)
        else:
            self.thinker_cache.release()
            if self.talker_cache is not None:
                self.talker_cache.release()
        self.last_hidden = None
        self.is_resting = True

    @property
    def num_to_prefill(self) -> int:
        """Tokens of the log that are not in the cache."""
        return len(self.log) - self.thinker_cache.length

    @property
    def talker_next(self) -> float:
        """Where a reply's prefix starts in the talker's positions."""
        return self._talker_next

    def _place_entry(self, entry: Entry) -> None:
        pieces = kept_pieces(entry)
        if not pieces:
            return
        if entry.placement is None:
            entry.placement = self._begin(entry)
        where = entry.placement
        new = pieces[where.num_pieces :]
        if len(self.log) + _tokens(new) > self.max_tokens:
            raise ContextFullError(
                f"the conversation is full: {self.max_tokens} tokens of context are used up"
            )
        for piece in new:
            self.log.append(piece, base=where.base, talker_base=where.talker_base)
        where.num_pieces = len(pieces)

    def _begin(self, entry: Entry) -> Placement:
        """Fix where an entry starts; what follows a reply first closes that reply's message."""
        start, next_, talker_next = len(self.log), self._next, self._talker_next
        if self._follows_reply():
            closing = Layout(in_talker=False)
            piece = closing.text(self.chat.close_ids())
            self.log.append(piece, base=next_, talker_base=talker_next)
            next_ += closing.next
        return Placement(
            start=start,
            next=self._next,
            talker_next=self._talker_next,
            base=next_,
            talker_base=talker_next,
        )

    def _follows_reply(self) -> bool:
        for entry in reversed(self.entries[: self._num_placed]):
            if entry.placement is not None:
                return isinstance(entry, ReplyEntry)
        return False

    def _advance(self, entry: Entry) -> None:
        where = entry.placement
        if where is None:
            return
        if isinstance(entry, ReplyEntry):
            self._next = where.base + sum(len(piece) for piece in entry.kept_pieces())
        else:
            self._next = where.base + entry.layout.next
        if entry.layout.in_talker:
            self._talker_next = where.talker_base + entry.layout.talker_next

    # ------------------------------------------------------------------ cutting
    def _drop_entries(self, num_entries: int) -> None:
        self._unplace(num_entries, is_replayed=False)
        del self.entries[num_entries:]
        if self._replay_from is not None and self._replay_from >= num_entries:
            self._replay_from = None

    def _unplace(self, index: int, *, is_replayed: bool) -> None:
        """Take entries from `index` on out of the token log.

        `is_replayed`: they will be placed again at once, so what a shortened reply keeps stays
        cached.
        """
        first = self._first_placement(index)
        if first is not None:
            unchanged = self._num_unchanged(index, first) if is_replayed else 0
            self._truncate(first.start + unchanged)
            self.log.truncate(first.start)
            self._next, self._talker_next = first.next, first.talker_next
        for entry in self.entries[index:]:
            entry.placement = None
        self._num_placed = min(self._num_placed, index)

    def _first_placement(self, index: int) -> Placement | None:
        """Where the entries from `index` on start in the log; None: none of them is placed."""
        if index == 0:  # the first entry may be new and unplaced while those behind it are placed
            return Placement(start=0, next=0.0, talker_next=0.0, base=0.0, talker_base=0.0)
        return next((e.placement for e in self.entries[index:] if e.placement is not None), None)

    def _num_unchanged(self, index: int, first: Placement) -> int:
        """Leading tokens behind `first.start` that placing again will reproduce: of a reply, what
        was there and stays.
        """
        entry = self.entries[index] if index < len(self.entries) else None
        if not isinstance(entry, ReplyEntry) or entry.placement is not first:
            return 0
        kept = entry.kept_pieces()[: first.num_pieces]
        return _close_length(first) + _tokens(kept) if kept else 0

    def _truncate(self, num_tokens: int) -> None:
        """Cut log and caches to `num_tokens` tokens."""
        self._truncate_caches(num_tokens)
        self.log.truncate(num_tokens)
        self.last_hidden = None

    def _truncate_caches(self, num_tokens: int) -> None:
        if num_tokens < self.thinker_cache.length:
            self.thinker_cache.truncate(num_tokens)
        if self.talker_cache is not None:
            talker_tokens = self.log.talker_length_at(num_tokens)
            if talker_tokens < self.talker_cache.length:
                self.talker_cache.truncate(talker_tokens)


def kept_pieces(entry: Entry) -> list[Piece]:
    """The pieces of an entry that belong into the log."""
    return entry.kept_pieces() if isinstance(entry, ReplyEntry) else entry.pieces


def _is_system(entry: Entry) -> bool:
    return isinstance(entry, MessageEntry) and entry.message.role == "system"


def _same_message(old: Entry | None, new: MessageEntry | None) -> bool:
    if old is None or new is None:
        return old is new
    return isinstance(old, MessageEntry) and old.message == new.message


def _is_behind(mark: Mark, place: Mark) -> bool:
    return _order(mark) > _order(place)


def _order(mark: Mark) -> tuple[int, int, int, bool]:
    return (mark.num_entries, mark.num_samples, mark.num_frames, not mark.is_open)


def _close_length(where: Placement) -> int:
    """Tokens that close the reply before this entry."""
    return round(where.base - where.next)


def _tokens(pieces: list[Piece]) -> int:
    return sum(len(piece) for piece in pieces)
