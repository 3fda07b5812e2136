"""What is done together with the most urgent unit of work.

Tokens and frames of other replies join the most urgent one's where that makes nobody late. Where a
device reads its weights for one as for many, those who wait for a first sound do all of it
together: their encodings before one prefill, the first tokens, the first frames. Pure choice, as
`models.scheduler`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.context import Context
from models.deadlines import BatchPace
from models.reply import Reply
from models.scheduler import (
    AFTER_LISTENING,
    BEFORE_LISTENING,
    EncodingQueue,
    Unit,
    by_class,
    reply_unit,
    slack_of,
)

MAX_FIRST_TOGETHER = 8  # first sounds that are made together: more would keep the first waiting


def join(
    unit: Unit,
    contexts: Mapping[int, Context],
    replies: Iterable[Reply],
    encoder: EncodingQueue,
    *,
    now_s: float,
    max_batch: int,
    pace: BatchPace,
    starts_together: bool = False,
) -> list[Unit]:
    """`unit`, which was chosen, and those of other replies that are done together with it.

    The token and the frame that make a first sound are joined only by others' of the same
    (`starts_together`: where a device reads its weights for one as for many). What runs dry soon
    joins unless the most urgent can still be in time and would not be: once somebody is late, doing
    most at once is best for all. Everything else joins only where, by what is known of the work's
    price, nobody becomes late.
    """
    by_id = {reply.id: reply for reply in replies}
    if unit.reply is None:
        return [unit]
    waiting = by_class(by_id.values(), now_s)
    if not can_share(unit, contexts, by_id[unit.reply]):
        if not starts_together or not _is_start(unit, contexts, by_id[unit.reply]):
            return [unit]
        others = waiting["first"] + waiting["held"]
        most = min(max_batch, MAX_FIRST_TOGETHER)
        return [unit, *_starts(unit, contexts, others, encoder)][:most]
    if waiting["first"]:
        return [unit]
    voice = type(by_id[unit.reply].voice)
    soon = [slack_of(reply, now_s) for reply in waiting["soon"]]
    least = min(soon or (slack_of(reply, now_s) for reply in waiting["steady"][:1]), default=None)
    batch = [unit]
    for name in BEFORE_LISTENING + AFTER_LISTENING:
        for reply in waiting[name]:
            if len(batch) == max_batch:
                return batch
            other = reply_unit(contexts[reply.context], reply, encoder)
            is_alike = other is not None and other.kind == unit.kind and other != unit
            if other is None or not is_alike or not can_share(other, contexts, reply):
                continue
            if unit.kind == "frame" and type(reply.voice) is not voice:
                continue
            costs = [pace.cost_s(unit.kind, size) for size in (1, len(batch) + 1)]
            if _makes_late(name == "soon", costs, soon, least):
                return batch
            batch.append(other)
    return batch


def join_prefill(
    unit: Unit,
    contexts: Mapping[int, Context],
    replies: Iterable[Reply],
    encoder: EncodingQueue,
    *,
    now_s: float,
    max_batch: int,
    max_tokens: int,
) -> list[Unit]:
    """`unit`, a reply's prefill, and those of others whose first sound waits for theirs: as many as
    have no more than `max_tokens` together, those first that are surely heard.
    """
    waiting = by_class(replies, now_s)
    batch, room = [unit], max_tokens - contexts[unit.context].num_to_prefill
    for reply in waiting["first"] + waiting["held"]:
        other = reply_unit(contexts[reply.context], reply, encoder)
        count = contexts[reply.context].num_to_prefill
        if other is None or other.kind != "prefill" or other == unit or count > room:
            continue
        if len(batch) < max_batch:
            batch.append(other)
            room -= count
    return batch


def next_to_encode(
    contexts: Mapping[int, Context],
    replies: Iterable[Reply],
    encoder: EncodingQueue,
    *,
    now_s: float,
) -> Unit | None:
    """What is to be encoded or placed before the prefill of one more first sound can be shared, of
    the next `MAX_FIRST_TOGETHER`; None: nothing.
    """
    for reply in by_class(replies, now_s)["first"][:MAX_FIRST_TOGETHER]:
        other = reply_unit(contexts[reply.context], reply, encoder)
        if other is not None and other.kind in ("encode", "place"):
            return other
    return None


def beside(
    units: Iterable[Unit], contexts: Mapping[int, Context], replies: Mapping[int, Reply]
) -> list[Unit]:
    """The next tokens of replies whose next frames are `units`: each is made without the other.

    None beside a first sound, which is not to be kept waiting; none that would come alone anyway.
    """
    found = []
    for unit in units:
        assert unit.reply is not None, unit
        reply, token = replies[unit.reply], Unit("token", unit.context, unit.reply)
        is_begun = can_share(unit, contexts, reply) and not reply.is_text_done
        if is_begun and can_share(token, contexts, reply):
            found.append(token)
    return found


def can_share(unit: Unit, contexts: Mapping[int, Context], reply: Reply) -> bool:
    """Whether others' work of this kind can be done together with it: the next token behind one
    that was sampled, the next frame of a voice that has begun.
    """
    if unit.kind == "token":
        is_step = bool(reply.text_ids) and contexts[unit.context].num_to_prefill == 1
        return is_step and reply.script_ids is None
    return unit.kind == "frame" and reply.voice is not None and reply.voice.num_frames > 0


def _is_start(unit: Unit, contexts: Mapping[int, Context], reply: Reply) -> bool:
    """Whether it is the first token or the first frame of a reply."""
    if unit.kind == "token":
        is_ready = contexts[unit.context].num_to_prefill == 0
        return is_ready and not reply.text_ids and reply.script_ids is None
    return unit.kind == "frame" and (reply.voice is None or reply.voice.num_frames == 0)


def _starts(
    unit: Unit, contexts: Mapping[int, Context], replies: Iterable[Reply], encoder: EncodingQueue
) -> list[Unit]:
    """Those of other replies that begin as `unit` does."""
    found = []
    for reply in replies:
        other = reply_unit(contexts[reply.context], reply, encoder)
        if other is None or other.kind != unit.kind or other == unit:
            continue
        if _is_start(other, contexts, reply):
            found.append(other)
    return found


def _makes_late(
    is_soon: bool, costs: list[float | None], soon: list[float], least: float | None
) -> bool:
    """Whether one more in a batch makes somebody late.

    Args:
        is_soon: whether the one more runs dry soon itself. costs: of one alone, and of the batch
            with it. soon: speech that those have left who run dry soon, least first. least: of all.
    """
    alone_s, cost_s = costs
    if alone_s is None or cost_s is None:
        return not is_soon and bool(soon)
    if is_soon:
        return alone_s <= soon[0] < cost_s
    return least is not None and least < cost_s
