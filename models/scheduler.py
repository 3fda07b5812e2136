"""Which unit of work an engine does next.

First packets before all, then the voice that has made least so far (it will run dry first), then
text that a voice waits for, then listening: encoding and prefill in the background, contexts in
turn. Pure choice: looks at contexts and replies, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from models.context import Context
from models.reply import Reply

UnitKind = Literal["encode", "place", "prefill", "token", "frame"]


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
) -> Unit | None:
    """The most urgent unit, or None; background work starts looking at `first_context`."""
    active = sorted((r for r in replies if r.is_active), key=_urgency)
    for reply in active:
        unit = reply_unit(contexts[reply.context], reply, encoder)
        if unit is not None:
            return unit
    ids = sorted(contexts)
    order = [i for i in ids if i >= first_context] + [i for i in ids if i < first_context]
    units = (context_unit(i, contexts[i], encoder) for i in order)
    return next((unit for unit in units if unit is not None), None)


def _urgency(reply: Reply) -> tuple[bool, int, int]:
    """Confirmed before speculative; then who has least speech; then who came first."""
    return (reply.held is not None, reply.num_samples, reply.id)


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
