"""Which unit of work an engine does next.

First packets before all, then the voice that has made least so far (it will run dry first), then
text that a voice waits for, then listening: encoding and prefill in the background, contexts in
turn; last of all speculative replies, a few frames of each. Pure choice: looks at contexts and
replies, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from models.context import Context
from models.reply import Reply

UnitKind = Literal["encode", "place", "prefill", "token", "frame"]
MAX_REPLY_UNITS = 4  # in a row, while somebody else's speech waits to be taken in
MAX_HELD_FRAMES = 4  # of a reply that may be in vain: more than playing it waits for
MAX_HELD_TOKENS = 16  # of one without a voice


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work for a context, and the reply that it serves, if any."""

    kind: UnitKind
    context: int
    reply: int | None = None


class EncodingQueue(Protocol):
    """Says whether a context waits for an encoder."""

    def has_work(self, context: Context) -> bool: ...


def choose(
    contexts: Mapping[int, Context],
    replies: Iterable[Reply],
    encoder: EncodingQueue,
    *,
    first_context: int = 0,
    owes_listening: bool = False,
) -> Unit | None:
    """The most urgent unit, or None; background work starts looking at `first_context`.

    `owes_listening`: replies have had so many units in a row that those who only speak to us come
    first now, unless somebody waits for the first sound of a reply.
    """
    active = sorted((r for r in replies if r.is_active), key=_urgency)
    sure = [r for r in active if r.held is None]
    held = [r for r in active if r.held is not None and not _is_far_enough(r)]
    if owes_listening and not any(r.is_awaited for r in sure):
        unit = _listening(contexts, encoder, first_context) or _replying(contexts, sure, encoder)
    else:
        unit = _replying(contexts, sure, encoder) or _listening(contexts, encoder, first_context)
    return unit or _replying(contexts, held, encoder)


def _replying(
    contexts: Mapping[int, Context], active: list[Reply], encoder: EncodingQueue
) -> Unit | None:
    units = (reply_unit(contexts[reply.context], reply, encoder) for reply in active)
    return next((unit for unit in units if unit is not None), None)


def _listening(
    contexts: Mapping[int, Context], encoder: EncodingQueue, first_context: int
) -> Unit | None:
    ids = sorted(contexts)
    order = [i for i in ids if i >= first_context] + [i for i in ids if i < first_context]
    units = (context_unit(i, contexts[i], encoder) for i in order)
    return next((unit for unit in units if unit is not None), None)


def _urgency(reply: Reply) -> tuple[int, int]:
    """Who has least speech; then who came first."""
    return (reply.num_samples, reply.id)


def _is_far_enough(reply: Reply) -> bool:
    """Whether a speculative reply need not go on before it is confirmed."""
    if reply.wants_voice:
        return len(reply.frame_ends) >= MAX_HELD_FRAMES
    return len(reply.text_ids) >= MAX_HELD_TOKENS


def context_unit(key: int, context: Context, encoder: EncodingQueue) -> Unit | None:
    """What a context waits for, in the order in which it must be done."""
    if context.can_place:
        return Unit("place", key)
    if encoder.has_work(context):
        return Unit("encode", key)
    if context.num_to_prefill > 0 and context.active_reply is None:
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
