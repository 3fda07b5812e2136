"""Brings the token log of a context into its caches: the thinker's and, in step, the talker's.

A sampled token is placed in the log and is then just the next token to prefill: a decode step is a
prefill of one, and the steps of several replies are one call of `step_rows`. The talker sees the
user's messages only: text through its text projection, media through the projection of the
thinker's hidden states at those tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from models.context import Context
from models.decoder import Deepstack
from models.pieces import PrefillBatch, joined
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.thinker import Thinker
from models.stepping.pages import PagedCache
from models.stepping.text_step import TextDraw, TextRow, TextStep


def prefill(model: Qwen3Omni, *contexts: Context, max_tokens: int) -> None:
    """Feed the next at most `max_tokens` tokens of each log, all in one pass over the weights;
    leaves each `last_hidden` of the last one.

    Raises:
        ResourceError: a cache is full. Whatever fails, caches are as they were.
    """
    lengths = [context.thinker_cache.length for context in contexts]
    try:
        hidden = _feed(model, contexts, max_tokens)
    except BaseException:
        for context, length in zip(contexts, lengths, strict=True):
            context.thinker_cache.truncate(length)  # the talker's come last: in step again
        raise
    for context, row in zip(contexts, hidden, strict=True):
        context.last_hidden = row


def step_rows(model: Qwen3Omni, contexts: Sequence[Context]) -> None:
    """Feed the next token of each log, which must be a reply's; leaves each `last_hidden`.

    Raises:
        ResourceError: a cache is full; none was changed.
    """
    thinker = model.thinker
    batches = [
        context.log.batch(context.thinker_cache.length, 1, thinker.device) for context in contexts
    ]
    hidden = thinker.step_rows(
        thinker.embed(torch.cat([batch.ids for batch in batches])),
        torch.cat([batch.positions for batch in batches], dim=1),  # [3, B]
        [context.thinker_cache for context in contexts],
    )
    for context, row in zip(contexts, hidden, strict=True):
        context.last_hidden = row


def step_text(
    step: TextStep, contexts: Sequence[Context], draws: Sequence[TextDraw | None]
) -> list[int | Tensor]:
    """`step_rows` on the device, room being made before: what comes next, in place of each
    `last_hidden`: the id, where `draws` says how it is drawn, else its logits [vocab], which the
    next step writes over.
    """
    rows = []
    for context, draw in zip(contexts, draws, strict=True):
        cache = context.thinker_cache
        assert isinstance(cache, PagedCache)
        token, position = context.log.text_at(cache.length)
        rows.append(
            TextRow(row=cache.row, token=token, length=cache.length, position=position, draw=draw)
        )
    made = step(rows)
    for context in contexts:
        context.thinker_cache.advance(1)
        context.last_hidden = None
    return made


def _feed(model: Qwen3Omni, contexts: Sequence[Context], max_tokens: int) -> list[Tensor]:
    """All caches one batch further; returns the hidden state of each context's last token."""
    thinker, talker = model.thinker, model.talker
    caches = [context.thinker_cache for context in contexts]
    batches = [
        context.log.batch(context.thinker_cache.length, max_tokens, thinker.device)
        for context in contexts
    ]
    counts = [len(batch.ids) for batch in batches]
    batch = joined(batches)
    embeds = embed_batch(thinker, batch)
    output = thinker.read_spans(embeds, batch.positions, caches, counts, deepstack_of(batch))
    heard = [
        (context.talker_cache, len(own.talker_rows))
        for context, own in zip(contexts, batches, strict=True)
        if context.talker_cache is not None and len(own.talker_rows)
    ]
    if talker is not None and heard:
        rows = batch.talker_rows
        inputs = talker.project_text(embeds[rows])  # [m, H], from here on where the talker lies
        media = batch.talker_media
        if len(media):
            assert output.captured is not None
            captured = talker.project_hidden(output.captured[rows[media]])  # [k, H]
            inputs = inputs.index_copy(0, media.to(talker.device), captured)
        positions = batch.talker_positions.to(talker.device)
        talker_caches, talker_counts = zip(*heard, strict=True)
        talker.read_spans(inputs, positions, talker_caches, talker_counts)
    return [output.hidden[stop - 1] for stop in accumulate(counts)]


def embed_batch(thinker: Thinker, batch: PrefillBatch) -> Tensor:
    """[n, hidden]: looked up, and the encoders' output in its place."""
    embeds: Tensor = thinker.embed(batch.ids)
    for first, piece in batch.media:
        assert piece.embeds is not None
        embeds[first : first + len(piece)] = piece.embeds
    return embeds


def deepstack_of(batch: PrefillBatch) -> Deepstack | None:
    """Features of the batch's picture tokens."""
    seen = [(first, piece) for first, piece in batch.media if piece.deepstack is not None]
    if not seen:
        return None
    index = [torch.arange(first, first + len(piece)) for first, piece in seen]
    features = [piece.deepstack for _, piece in seen if piece.deepstack is not None]
    return Deepstack(
        index=torch.cat(index).to(batch.ids.device),
        features=torch.cat(features, dim=1),  # [D, V, H]
    )
