"""Which unit of work an engine does next.

By deadline: first sounds before all, then the voice that runs dry soonest, then text that is only
read; then listening (encoding and prefill in the background, contexts in turn); then voices that
have some seconds in hand; then speculative replies, a few frames of each; last, voices far ahead of
their listeners. So nobody waits for speech that will not be played for a while. What is done
together with the most urgent: `models.joining`. Pure choice: looks at contexts and replies, changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from models.context import Context
from models.reply import Reply

UnitKind = Literal["read", "encode", "place", "prefill", "token", "frame"]
SOON_S = 0.16  # with less speech left to play, a voice comes before everything but first sounds
AHEAD_S = 2.0  # with more, it comes after everything
# Units for replies in a row while somebody else's speech waits to be taken in: where no voice is
# about to run dry, and where one always is because there are more sessions than can be served.
MAX_REPLY_UNITS = 4
MAX_URGENT_UNITS = 32
FAIR_S = 0.25  # of one prefill while somebody else might want to be answered
MAX_HELD_FRAMES = 4  # of a reply that may be in vain: more than playing it waits for
MAX_HELD_TOKENS = 16  # of one without a voice

Class = Literal["first", "soon", "text", "steady", "held", "ahead"]
BEFORE_LISTENING: tuple[Class, ...] = ("first", "soon", "text")
AFTER_LISTENING: tuple[Class, ...] = ("steady", "held", "ahead")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work for a context, and the reply that it serves, if any."""

    kind: UnitKind
    context: int
    reply: int | None = None


class EncodingQueue(Protocol):
    """Says whether a context waits for an encoder."""

    def has_work(self, context: Context) -> bool:
        """Whether this one does."""


def choose(
    contexts: Mapping[int, Context],
    replies: Iterable[Reply],
    encoder: EncodingQueue,
    *,
    now_s: float,
    first_context: int = 0,
    num_reply_units: int = 0,
) -> Unit | None:
    """The most urgent unit, or None.

    Args:
        now_s: the time by the clock that the replies' playout began on.
        first_context: where background work starts looking.
        num_reply_units: units that replies have had in a row.
    """
    waiting = by_class(replies, now_s)
    listening = _listening(contexts, encoder, first_context)
    if listening is not None and _owes_listening(waiting, num_reply_units):
        return listening
    for name in BEFORE_LISTENING:
        if (unit := _replying(contexts, waiting[name], encoder)) is not None:
            return unit
    if listening is not None:
        return listening
    for name in AFTER_LISTENING:
        if (unit := _replying(contexts, waiting[name], encoder)) is not None:
            return unit
    return None


def room_s(replies: Iterable[Reply], now_s: float, num_contexts: int = 1) -> float | None:
    """The least speech that any listener has left to play, or how long others may be kept waiting
    where nobody is being spoken to; None: there are no others.
    """
    speaking = (r for r in replies if r.is_active and r.wants_voice and not r.is_voice_done)
    slacks = (r.playout.slack_s(now_s) for r in speaking)
    return min(
        (slack for slack in slacks if slack is not None),
        default=FAIR_S if num_contexts > 1 else None,
    )


def num_speaking(replies: Iterable[Reply]) -> int:
    """Replies whose speech is being made."""
    return sum(1 for r in replies if r.is_active and r.wants_voice and r.held is None)


def by_class(replies: Iterable[Reply], now_s: float) -> dict[Class, list[Reply]]:
    """Active replies in the order in which each class is served."""
    active = (r for r in replies if r.is_active)
    order = sorted((slack_of(r, now_s), r.num_samples, r.id, r) for r in active)
    found: dict[Class, list[Reply]] = {name: [] for name in BEFORE_LISTENING + AFTER_LISTENING}
    for slack, _, _, reply in order:
        if reply.held is None:
            found[_class_of(reply, slack)].append(reply)
        elif not _is_far_enough(reply):
            found["held"].append(reply)
    return found


def _class_of(reply: Reply, slack_s: float) -> Class:
    if reply.is_awaited:
        return "first"
    if not reply.wants_voice or reply.is_voice_done:
        return "text"
    if slack_s < SOON_S:
        return "soon"
    return "steady" if slack_s < AHEAD_S else "ahead"


def slack_of(reply: Reply, now_s: float) -> float:
    """Seconds of speech that its listener has left; 0 where nothing has been made."""
    slack = reply.playout.slack_s(now_s)
    return 0.0 if slack is None else slack


def _owes_listening(waiting: Mapping[Class, list[Reply]], num_reply_units: int) -> bool:
    """Whether those who only speak to us come first now."""
    if waiting["first"]:
        return False
    return num_reply_units >= (MAX_URGENT_UNITS if waiting["soon"] else MAX_REPLY_UNITS)


def _replying(
    contexts: Mapping[int, Context], replies: list[Reply], encoder: EncodingQueue
) -> Unit | None:
    units = (reply_unit(contexts[reply.context], reply, encoder) for reply in replies)
    return next((unit for unit in units if unit is not None), None)


def _listening(
    contexts: Mapping[int, Context], encoder: EncodingQueue, first_context: int
) -> Unit | None:
    ids = sorted(contexts)
    order = [i for i in ids if i >= first_context] + [i for i in ids if i < first_context]
    units = (context_unit(i, contexts[i], encoder) for i in order)
    return next((unit for unit in units if unit is not None), None)


def _is_far_enough(reply: Reply) -> bool:
    """Whether a speculative reply need not go on before it is confirmed."""
    if reply.wants_voice:
        return len(reply.frame_ends) >= MAX_HELD_FRAMES
    return len(reply.text_ids) >= MAX_HELD_TOKENS


def context_unit(key: int, context: Context, encoder: EncodingQueue) -> Unit | None:
    """What a context waits for, in the order in which it must be done; first, what its owner asks:
    whoever speaks waits for that.
    """
    if context.question is not None:
        return Unit("read", key)
    if context.can_place:
        return Unit("place", key)
    if encoder.has_work(context):
        return Unit("encode", key)
    is_free = context.active_reply is None and not context.is_resting
    if is_free and context.num_to_prefill > 0:
        return Unit("prefill", key)
    return None


def reply_unit(context: Context, reply: Reply, encoder: EncodingQueue) -> Unit | None:
    """What a reply waits for: its context first, then its first token, then voice before text."""
    key = reply.context
    if not context.is_placed(reply.entry):
        kind: UnitKind = "place" if context.can_place else "encode"
        return Unit(kind, key, reply.id)
    if not reply.text_ids and context.num_to_prefill > 0:
        return Unit("prefill", key, reply.id)
    if reply.can_speak:
        return Unit("frame", key, reply.id)
    if not reply.is_text_done:
        return Unit("token", key, reply.id)
    return None
