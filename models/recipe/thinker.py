"""Training of the thinker: from what is heard and seen to the reply's text.

The decoder alone first learns from imagined rows (`models.recipe.imagined`); then all learn
together from sounds and pictures. A batch of sheets goes through as few padded sequences; the loss
is that of the reply's tokens, and what the encoders write goes on being held to what they have
learnt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.decoder import Deepstack
from models.recipe.batches import BatchOutput, let_norms_learn, run_batch
from models.recipe.hearing import WINDOW_FRAMES, ears_of, hear_batch, words_loss
from models.recipe.imagined import grid_rows, imagined_rows
from models.recipe.learner import Learner
from models.recipe.run import Pace, Run
from models.recipe.sheets import Sheet
from models.recipe.sight import marks_of, things_loss

LANGUAGE_PACE = Pace(peak_rate=1.5e-3, warmup_steps=200, rate_halves_after=3000, averaging=0.997)
PACE = Pace(peak_rate=5e-4, warmup_steps=200, rate_halves_after=3000, averaging=0.997)
WORDS_WEIGHT = 0.05
THINGS_WEIGHT = 0.3
MAX_PADDED_TOKENS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What encoders made for some sheets, one after the other.

    Attributes:
        sounds: [a, H]. sights: [v, H]. deepstack: [levels, v, H], or None.
        loss: of the encoders' own.
    """

    sounds: Tensor
    sights: Tensor
    deepstack: Tensor | None = None
    loss: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Loss summed over the replies' tokens; how many replies would be said exactly so, greedily."""

    text: Tensor
    num_tokens: int
    num_right: int
    num_replies: int


def take_step(
    run: Run,
    learner: Learner,
    sheets: Sequence[Sheet],
    encode: Callable[[Sequence[Sheet]], Rows],
) -> dict[str, float]:
    """One step on some sheets; `encode` makes the media rows of a part of them."""
    run.begin_step()
    num_tokens = sum(len(ids) for sheet in sheets for _, ids in sheet.replies)
    text = encoders = 0.0
    num_right = num_replies = 0
    for part in _parts(sheets):
        with torch.autocast("cpu", torch.bfloat16):
            rows = encode(part)
            outcome = study(learner, part, rows)
        loss = outcome.text / num_tokens
        if rows.loss is not None:
            share = len(part) / len(sheets)
            loss = loss + share * rows.loss
            encoders += share * rows.loss.item()
        loss.backward()  # type: ignore[no-untyped-call]
        text += outcome.text.item() / num_tokens
        num_right += outcome.num_right
        num_replies += outcome.num_replies
    run.end_step()
    return {"text": text, "encoders": encoders, "right": num_right / num_replies}


def imagine(learner: Learner, chance: random.Random) -> Callable[[Sequence[Sheet]], Rows]:
    """Rows as encoders will make them."""

    def rows(sheets: Sequence[Sheet]) -> Rows:
        made = [imagined_rows(learner, sheet, chance) for sheet in sheets]
        return Rows(sounds=torch.cat([s for s, _ in made]), sights=torch.cat([v for _, v in made]))

    return rows


def perceive(learner: Learner, chance: random.Random) -> Callable[[Sequence[Sheet]], Rows]:
    """Rows that the encoders make, and how well."""
    ears = ears_of(learner)

    def rows(sheets: Sequence[Sheet]) -> Rows:
        losses = []
        sounds = [sound for sheet in sheets for sound in sheet.sounds]
        heard = learner.table.new_zeros(0, learner.table.shape[1])
        if sounds:
            windows = [chance.choice(WINDOW_FRAMES) if s.has_camera else 800 for s in sounds]
            tokens, _ = hear_batch(ears.encoder, [sound.mel for sound in sounds], windows)
            heard = torch.cat(tokens)
            loss, _ = words_loss(ears, tokens, [sound.words for sound in sounds])
            losses.append(WORDS_WEIGHT * loss)
        grids = [grid for sheet in sheets for grid in sheet.grids]
        seen, deepstack = heard[:0], None
        if grids:
            patches = torch.cat([grid.patches.float() for grid in grids])
            seen, deepstack = learner.thinker.visual(patches, grids[0].size, num_grids=len(grids))
            wanted = torch.cat([grid_rows(learner, grid) for grid in grids])
            loss, _ = things_loss(learner, seen.float(), wanted, marks_of(grids))
            losses.append(THINGS_WEIGHT * loss)
        total = torch.stack(losses).sum() if losses else None
        return Rows(sounds=heard, sights=seen, deepstack=deepstack, loss=total)

    return rows


def study(learner: Learner, sheets: Sequence[Sheet], rows: Rows) -> Outcome:
    """The reply losses of some sheets, with gradients where they are on."""
    output, length = read_sheets(learner, sheets, rows)
    flat = output.hidden.flatten(0, 1)
    places = [
        number * length + start - 1 + k
        for number, sheet in enumerate(sheets)
        for start, ids in sheet.replies
        for k in range(len(ids))
    ]
    wanted = torch.tensor([i for sheet in sheets for _, ids in sheet.replies for i in ids])
    logits = learner.thinker.logits(flat[torch.tensor(places)])
    is_right = logits.argmax(dim=1) == wanted
    lengths = [len(ids) for sheet in sheets for _, ids in sheet.replies]
    return Outcome(
        text=F.cross_entropy(logits, wanted, reduction="sum"),
        num_tokens=len(wanted),
        num_right=sum(bool(part.all()) for part in torch.split(is_right, lengths)),
        num_replies=len(lengths),
    )


def read_sheets(
    learner: Learner, sheets: Sequence[Sheet], rows: Rows, *, capture_layer: int | None = None
) -> tuple[BatchOutput, int]:
    """Hidden states of all tokens [B, n, H], and n, the length of the longest sheet."""
    thinker = learner.thinker
    let_norms_learn(thinker.model)
    length = max(len(sheet.ids) for sheet in sheets)
    ids = torch.zeros(len(sheets), length, dtype=torch.long)
    positions = torch.zeros(3, len(sheets), length)
    sounds, sights = [], []
    for number, sheet in enumerate(sheets):
        ids[number, : len(sheet.ids)] = sheet.ids
        positions[:, number, : len(sheet.ids)] = sheet.positions
        sounds.append(sheet.sound_at + number * length)
        sights.append(sheet.sight_at + number * length)
    sound_at, sight_at = torch.cat(sounds), torch.cat(sights)
    embeds = thinker.embed(ids).flatten(0, 1)
    embeds = embeds.index_copy(0, sound_at, rows.sounds.to(embeds.dtype))
    embeds = embeds.index_copy(0, sight_at, rows.sights.to(embeds.dtype))
    deepstack = None
    if rows.deepstack is not None:
        deepstack = Deepstack(index=sight_at, features=rows.deepstack)
    output = run_batch(
        thinker.model,
        embeds.view(len(sheets), length, -1),
        positions,
        deepstack=deepstack,
        capture_layer=capture_layer,
    )
    return output, length


def decoder_of(learner: Learner) -> nn.Module:
    """What learns from imagined rows: all but the encoders."""
    return nn.ModuleDict({"model": learner.thinker.model, "lm_head": learner.thinker.lm_head})


def _parts(sheets: Sequence[Sheet]) -> list[list[Sheet]]:
    """Sheets of about one length together, so that little is filled up."""
    parts: list[list[Sheet]] = []
    for sheet in sorted(sheets, key=lambda sheet: len(sheet.ids)):
        if parts and len(sheet.ids) * (len(parts[-1]) + 1) <= MAX_PADDED_TOKENS:
            parts[-1].append(sheet)
        else:
            parts.append([sheet])
    return parts
