"""Does the units of work that `models.scheduler` chose, and says what failed.

A unit is a few ms of device work: a part of a context's listening, or the next token or frame of
one or more replies. On a CPU a frame's replies get their next tokens at the same time, on another
core: neither reads what the other writes. What fails ends the work that it belongs to and nothing
else: of a batch, the reply that can not go on; all of its replies only where their common part
failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from torch import Tensor

from models import joining, scheduler
from models.cache_budget import CacheBudget
from models.content import EngineEvent, FaultEvent, ReadingEvent
from models.context import Context
from models.deadlines import BatchPace, PrefillPace
from models.encoding import MessageEncoder
from models.errors import ModelError
from models.prefill import prefill
from models.qwen3_omni.model import Qwen3Omni
from models.reply import Reply
from models.replying import Frame, OwnReply, ReplyMaker
from models.scheduler import Unit
from models.threads import num_cores, side_by_side
from models.word_reading import WordReader

Made = TypeVar("Made")
SHARED_PREFILL_UNITS = 2  # of prefill for several who wait for a first sound
MAX_SHARED_ENCODINGS = 32  # units in a row before a prefill that is shared


@dataclass(frozen=True, slots=True)
class Steps(Generic[Made]):
    """How a kind of unit is done: one part for each reply alone, one of all together, and again one
    for each with what was made.
    """

    ready: Callable[[Context, Reply], None]
    make: Callable[[Sequence[OwnReply]], list[Made]]
    take: Callable[[Context, Reply, Made], None]


class Work:
    """The engine's contexts and replies at work; both mappings are the engine's and change."""

    def __init__(
        self,
        *,
        model: Qwen3Omni,
        encoder: MessageEncoder,
        reader: WordReader | None,
        maker: ReplyMaker,
        budget: CacheBudget,
        contexts: Mapping[int, Context],
        replies: Mapping[int, Reply],
        clock: Callable[[], float],
        emit: Callable[[EngineEvent], None],
        prefill_tokens: int,
        max_batch: int,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._reader = reader
        self._maker = maker
        self._budget = budget
        self._contexts = contexts
        self._replies = replies
        self._clock = clock
        self._emit = emit
        self._prefill_tokens = prefill_tokens
        self._max_batch = max_batch
        self._shares_starts = model.thinker.device.type != "cpu"  # there bytes cost, not products
        self._has_other_core = model.thinker.device.type == "cpu" and num_cores() > 1
        self._pace = PrefillPace()
        self._batch_pace = BatchPace()
        self._next_context = 0
        self._num_reply_units = 0

    def next_unit(self) -> Unit | None:
        """The most urgent unit; None: there is nothing to do."""
        return scheduler.choose(
            self._contexts,
            self._replies.values(),
            self._encoder,
            now_s=self._clock(),
            first_context=self._next_context,
            num_reply_units=self._num_reply_units,
        )

    def do(self, unit: Unit) -> None:
        """Do a unit, and what others have to do of its kind where that is done together."""
        self._budget.at_work = unit.context
        self._num_reply_units = 0 if unit.reply is None else self._num_reply_units + 1
        if unit.reply is None:
            self._next_context = unit.context + 1
        if unit.kind in ("token", "frame"):
            self._reply(unit)
            return
        if unit.kind == "prefill":
            self._prefill(unit)
            return
        self._alone(unit, partial(self._listen, unit))
        if unit.reply is not None:
            self._maker.note(self._contexts[unit.context], self._replies[unit.reply])

    def forget_paces(self) -> None:
        """What was learnt of the price of work is no longer true."""
        self._pace, self._batch_pace = PrefillPace(), BatchPace()

    # ------------------------------------------------------------------ contexts
    def _listen(self, unit: Unit) -> None:
        context = self._contexts[unit.context]
        if unit.kind == "read":
            self._read(unit.context, context)
        elif unit.kind == "encode":
            self._encoder.encode_next(context)
        else:
            context.place()

    def _read(self, key: int, context: Context) -> None:
        assert self._reader is not None
        assert context.question is not None
        (query, pcm), context.question = context.question, None
        reading = self._reader.read(self._encoder.hear(pcm))
        self._emit(ReadingEvent(context=key, query=query, reading=reading))

    def _prefill(self, unit: Unit) -> None:
        """As much as nobody runs dry over; where it costs little, others' who wait as well."""
        shares = unit.reply is not None and self._shares_starts
        if shares:
            self._encode_others()
        started_s = self._clock()
        room_s = scheduler.room_s(self._replies.values(), started_s, len(self._contexts))
        most = self._prefill_tokens * (SHARED_PREFILL_UNITS if shares else 1)
        max_tokens = self._pace.chunk(most, room_s)
        units = [unit]
        if shares:
            units = joining.join_prefill(
                unit,
                self._contexts,
                self._replies.values(),
                self._encoder,
                now_s=started_s,
                max_batch=min(self._max_batch, joining.MAX_FIRST_TOGETHER),
                max_tokens=max_tokens,
            )
        caches = [self._contexts[each.context].thinker_cache for each in units]
        before = sum(cache.length for cache in caches)
        if len(units) == 1 or not self._prefill_together(units, max_tokens):
            for each in units:
                context = self._contexts[each.context]
                self._alone(each, partial(prefill, self._model, context, max_tokens=max_tokens))
        self._pace.learn(sum(c.length for c in caches) - before, self._clock() - started_s)
        self._budget.enforce(self._contexts)
        for each in units:
            if each.reply is not None:
                self._maker.note(self._contexts[each.context], self._replies[each.reply])

    def _encode_others(self) -> None:
        """Of those who wait for a first sound, too, so that their prefill can be shared."""
        for _ in range(MAX_SHARED_ENCODINGS):
            other = joining.next_to_encode(
                self._contexts, self._replies.values(), self._encoder, now_s=self._clock()
            )
            if other is None or other.reply is None:
                return
            self._alone(other, partial(self._listen, other))
            self._maker.note(self._contexts[other.context], self._replies[other.reply])

    def _prefill_together(self, units: Sequence[Unit], max_tokens: int) -> bool:
        """One pass for all; False: one of them can not go on, and nothing was done."""
        contexts = [self._contexts[unit.context] for unit in units]
        try:
            prefill(self._model, *contexts, max_tokens=max_tokens)
        except ModelError:
            return False
        return True

    # ------------------------------------------------------------------ replies
    def _reply(self, unit: Unit) -> None:
        """The next token or frame of a reply, and of those that join it."""
        started_s = self._clock()
        units = joining.join(
            unit,
            self._contexts,
            self._replies.values(),
            self._encoder,
            now_s=started_s,
            max_batch=self._max_batch,
            pace=self._batch_pace,
            starts_together=self._shares_starts,
        )
        is_shared = joining.can_share(unit, self._contexts, self._own(unit).reply)
        if unit.kind == "token":
            self._take(*self._make(units, self._tokens()))
        else:
            self._speak(units)
        if is_shared:
            self._batch_pace.learn(unit.kind, len(units), self._clock() - started_s)

    def _speak(self, units: Sequence[Unit]) -> None:
        """Frames, and at the same time the next tokens of the same replies where that is begun."""
        beside = []
        if self._has_other_core:
            beside = joining.beside(units, self._contexts, self._replies)
        if not beside:
            self._take(*self._make(units, self._frames()))
            return
        frames, made_tokens = side_by_side(
            partial(self._make, units, self._frames()),
            partial(self._make, beside, self._tokens()),
        )
        self._take(*frames)
        self._take(*made_tokens)

    def _tokens(self) -> Steps[int | Tensor | None]:
        maker = self._maker
        return Steps(maker.ready_token, maker.feed_tokens, maker.take_token)

    def _frames(self) -> Steps[Frame | None]:
        maker = self._maker
        return Steps(maker.ready_frame, maker.make_frames, maker.give_frame)

    def _make(
        self, units: Sequence[Unit], steps: Steps[Made]
    ) -> tuple[Steps[Made], list[tuple[Unit, Made | ModelError]]]:
        """The first two of `Steps`; for each unit what was made, or why it was not.

        What one reply's own part raises is that reply's end. The common part has brought all of
        them forward by then: what it raises is the end of all.
        """
        results: list[tuple[Unit, Made | ModelError]] = []
        able = []
        for unit in units:
            own = self._own(unit)
            try:
                steps.ready(own.context, own.reply)
            except ModelError as error:
                results.append((unit, error))
            else:
                able.append((unit, own))
        if not able:
            return steps, results
        try:
            made: Sequence[Made | ModelError] = steps.make([own for _, own in able])
        except ModelError as error:
            made = [error] * len(able)
        results += [(unit, one) for (unit, _), one in zip(able, made, strict=True)]
        return steps, results

    def _take(self, steps: Steps[Made], results: list[tuple[Unit, Made | ModelError]]) -> None:
        """The last of `Steps`, for each reply that has not ended meanwhile."""
        for unit, made in results:
            own = self._own(unit)
            if not own.reply.is_active:
                continue
            if isinstance(made, ModelError):
                self._fail(unit, made)
                continue
            self._alone(unit, partial(steps.take, own.context, own.reply, made))
            self._maker.note(own.context, own.reply)

    def _own(self, unit: Unit) -> OwnReply:
        assert unit.reply is not None, unit
        return OwnReply(self._contexts[unit.context], self._replies[unit.reply])

    # ------------------------------------------------------------------ failures
    def _alone(self, unit: Unit, part: Callable[[], None]) -> bool:
        """Do a unit's own part; returns whether it could be done."""
        try:
            part()
        except ModelError as error:
            self._fail(unit, error)
            return False
        return True

    def _fail(self, unit: Unit, error: ModelError) -> None:
        """Let the unit's own work end; the context is as if it had never been asked for.

        No reply is made to a message that had to be left out: who waits for it fails, or the next.
        """
        if unit.kind == "read":
            return  # the question stays without an answer, the log is as it was
        context = self._contexts[unit.context]
        if unit.kind in ("encode", "place"):
            context.void_failed()
        if unit.reply is None:
            context.fault = error
            self._emit(FaultEvent(context=unit.context, error=str(error)))
            return
        self.fail_reply(context, self._replies[unit.reply], error)

    def fail_reply(self, context: Context, reply: Reply, error: ModelError) -> None:
        """End a reply that can not be made; nothing of it stays."""
        self._maker.fail(context, reply, error)
        context.keep_reply(reply.entry, 0)
