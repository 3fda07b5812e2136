"""Training of the thinker: from what is heard and seen to the reply's text.

The decoder first learns from imagined rows (`models.recipe.imagined`), then also from those that
the encoders make of sounds and pictures, which stay as they have learnt to be. A batch goes
through as few padded sequences; the loss is that of the reply's tokens.
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
from models.recipe.heard_words import HeardWords
from models.recipe.hearing import WINDOW_FRAMES, hear_batch
from models.recipe.imagined import imagined_rows
from models.recipe.learner import Learner
from models.recipe.quick_types import quick_types
from models.recipe.run import Pace, Run
from models.recipe.sheets import Sheet

LANGUAGE_PACE = Pace(peak_rate=1.5e-3, warmup_steps=200, rate_halves_after=3000, averaging=0.997)
PACE = Pace(peak_rate=1.5e-3, warmup_steps=60, rate_halves_after=6000, averaging=0.995)
MAX_PADDED_TOKENS = 4000
MIN_SHARED = 24  # tokens that sheets must begin with in common to be computed together


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What encoders made for some sheets, one after the other.

    Attributes:
        sounds: [a, H]. sights: [v, H]. deepstack: [levels, v, H], or None.
    """

    sounds: Tensor
    sights: Tensor
    deepstack: Tensor | None = None


Encode = Callable[[Sequence[Sheet]], Rows]
Encoding = Callable[[Learner, random.Random], Encode]


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
    encode: Encode,
) -> dict[str, float]:
    """One step on some sheets; `encode` makes the media rows of a part of them."""
    run.begin_step()
    num_tokens = sum(len(ids) for sheet in sheets for _, ids in sheet.replies)
    text = 0.0
    num_right = num_replies = 0
    for part in _parts(sheets):
        with quick_types():
            rows = encode(part)
            outcome = study(learner, part, rows)
        (outcome.text / num_tokens).backward()  # type: ignore[no-untyped-call]
        text += outcome.text.item() / num_tokens
        num_right += outcome.num_right
        num_replies += outcome.num_replies
    run.end_step()
    return {"text": text, "right": num_right / num_replies}


def imagine(learner: Learner, chance: random.Random, heard: HeardWords | None = None) -> Encode:
    """Rows as encoders will make them, or have made them of the same words."""

    def rows(sheets: Sequence[Sheet]) -> Rows:
        made = [imagined_rows(learner, sheet, chance, heard) for sheet in sheets]
        return Rows(sounds=torch.cat([s for s, _ in made]), sights=torch.cat([v for _, v in made]))

    return rows


def look(learner: Learner, chance: random.Random, heard: HeardWords | None = None) -> Encode:
    """Sounds as the encoder will make them, and pictures as it does."""

    def rows(sheets: Sequence[Sheet]) -> Rows:
        sights, deepstack = _seen(learner, sheets)
        return Rows(
            sounds=imagine(learner, chance, heard)(sheets).sounds,
            sights=sights,
            deepstack=deepstack,
        )

    return rows


def perceive(learner: Learner, chance: random.Random) -> Encode:
    """Rows that the encoders make."""
    encoder = learner.thinker.audio_tower

    @torch.no_grad()
    def rows(sheets: Sequence[Sheet]) -> Rows:
        sounds = [sound for sheet in sheets for sound in sheet.sounds]
        heard = learner.table.new_zeros(0, learner.table.shape[1])
        if sounds:
            windows = [chance.choice(WINDOW_FRAMES) if s.has_camera else 800 for s in sounds]
            tokens, _ = hear_batch(encoder, [sound.mel for sound in sounds], windows)
            heard = torch.cat(tokens)
        sights, deepstack = _seen(learner, sheets)
        return Rows(sounds=heard, sights=sights, deepstack=deepstack)

    return rows


@torch.no_grad()
def _seen(learner: Learner, sheets: Sequence[Sheet]) -> tuple[Tensor, Tensor | None]:
    """What the vision encoder makes of the grids of some sheets."""
    grids = [grid for sheet in sheets for grid in sheet.grids]
    if not grids:
        return learner.table.new_zeros(0, learner.table.shape[1]), None
    patches = torch.cat([grid.patches.float() for grid in grids])
    sights, deepstack = learner.thinker.visual(patches, grids[0].size, num_grids=len(grids))
    return sights, deepstack


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
    """Hidden states of all tokens [B, n, H], and n, the length of the longest sheet.

    What all of them begin with is computed once.
    """
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
        num_shared=num_shared(sheets),
        deepstack=deepstack,
        capture_layer=capture_layer,
    )
    return output, length


def decoder_of(learner: Learner) -> nn.Module:
    """What learns from imagined rows: all but the encoders."""
    return nn.ModuleDict({"model": learner.thinker.model, "lm_head": learner.thinker.lm_head})


def num_shared(sheets: Sequence[Sheet]) -> int:
    """Tokens of text that several sheets begin with in common: as a rule, the system's."""
    if len(sheets) < 2:
        return 0
    length = min(_begins_with_text(sheet) for sheet in sheets)
    ids = torch.stack([sheet.ids[:length] for sheet in sheets])
    differs = (ids != ids[0]).any(dim=0).nonzero()[:, 0]
    return int(differs[0]) if len(differs) else length


def _begins_with_text(sheet: Sheet) -> int:
    """Tokens before the first of a sound, a picture or a reply."""
    places = [int(at[0]) for at in (sheet.sound_at, sheet.sight_at) if len(at)]
    return min([*places, *(start - 1 for start, _ in sheet.replies), len(sheet.ids)])


def _parts(sheets: Sequence[Sheet]) -> list[list[Sheet]]:
    """Sheets that begin alike and are of about one length together: little is computed twice, and
    little is filled up.
    """
    parts: list[list[Sheet]] = []
    for alike in _groups(sheets):
        shared = num_shared(alike)
        part: list[Sheet] = []
        for sheet in sorted(alike, key=lambda sheet: len(sheet.ids)):
            if (len(sheet.ids) - shared) * (len(part) + 1) > MAX_PADDED_TOKENS:
                parts.append(part)
                part = []
            part.append(sheet)
        parts.append(part)
    return [part for part in parts if part]


def _groups(sheets: Sequence[Sheet]) -> list[list[Sheet]]:
    """Sheets of the same beginning; those that have a common one with nobody."""
    groups: dict[bytes, list[Sheet]] = {}
    for sheet in sheets:
        beginning = sheet.ids[:MIN_SHARED].numpy().tobytes()
        groups.setdefault(beginning, []).append(sheet)
    alone = [group[0] for group in groups.values() if len(group) == 1]
    return [*(group for group in groups.values() if len(group) > 1), alone]
