"""Training of the talker with its code predictor: from a reply's text to the codes of its speech.

A reply is one sequence, laid out as the engine lays it out: what the user said so far (through the
thinker, which does not change any more), the prefix that names the voice, then a position for each
frame. The predictor sees all frames of all replies as one batch. Losses are those of the first
codes, the end code among them, and of the residual codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import OmniConfig
from models.qwen3_omni.talker import Talker
from models.recipe.batches import build_constants, let_norms_learn, run_batch
from models.recipe.learner import Learner, initialise
from models.recipe.quick_types import quick_types
from models.recipe.run import Pace, Run
from models.recipe.sheets import Sheet
from models.recipe.thinker import Rows, read_sheets

PACE = Pace(peak_rate=1.5e-3, warmup_steps=200, rate_halves_after=3000, averaging=0.997)
MOST_FORGOTTEN = 0.9  # of the frames of a reply; as many as chance says
WRONG_SHARE = 0.3  # of those: another frame in its place
RESIDUAL_FRAMES = 192  # of a step; more would cost more than they teach


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply: what came before it, its text ids, and its speech as codes [n, num_code_groups]."""

    past: Sheet
    text_ids: tuple[int, ...]
    codes: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the talker hears before a reply: inputs of the thinker's width, and where they lie.

    Attributes:
        embeds: [m, thinker H], text embeddings, and captured hidden states where is_media.
        positions: [3, m]. next: position of what follows.
    """

    embeds: Tensor
    is_media: Tensor
    positions: Tensor
    next: float


def new_talker(config: OmniConfig, seed: int) -> Talker:
    """An untrained one."""
    torch.manual_seed(seed)
    talker = Talker(config)
    for name, parameter in talker.named_parameters():
        initialise(name, parameter)
    build_constants(talker)
    return talker


@torch.no_grad()
def pasts_of(learner: Learner, sheets: Sequence[Sheet], rows: Rows) -> list[Past]:
    """The user's part of some sheets, as the thinker hears it."""
    layer = learner.thinker.capture_layer
    output, _ = read_sheets(learner, sheets, rows, capture_layer=layer)
    assert output.captured is not None
    made = []
    for sheet, captured in zip(sheets, output.captured, strict=True):
        is_media = torch.zeros(len(sheet.ids), dtype=torch.bool)
        is_media[sheet.sound_at] = is_media[sheet.sight_at] = True
        seen = sheet.talker_rows
        text = learner.thinker.embed(sheet.ids[seen])
        made.append(
            Past(
                embeds=torch.where(is_media[seen, None], captured[seen].float(), text),
                is_media=is_media[seen],
                positions=sheet.talker_positions,
                next=sheet.talker_next,
            )
        )
    return made


def replies_loss(
    talker: Talker,
    learner: Learner,
    pasts: Sequence[Past],
    replies: Sequence[Reply],
    speaker_id: int,
    *,
    most_forgotten: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Mean loss of the first codes with the end, and of the residual codes.

    Args:
        most_forgotten: up to so large a share of a reply's frames is hidden from what follows.
    """
    let_norms_learn(talker)
    header = learner.chat.assistant_header_ids()
    special = talker.special_text(learner.thinker.embed, header)
    sequences, positions = [], []
    for past, reply in zip(pasts, replies, strict=True):
        text = talker.project_text(learner.thinker.embed(torch.tensor(reply.text_ids)))
        heard = torch.where(
            past.is_media[:, None],
            talker.project_hidden(past.embeds),
            talker.project_text(past.embeds),
        )
        prefix = talker.reply_prefix(special, speaker_id, text[0])
        tail = torch.cat([text[1:], special.end[None], special.pad[None]])
        num_frames = len(reply.codes)
        following = tail[torch.arange(num_frames).clamp(max=len(tail) - 1)]
        frames = _forgetful(frame_embeds(talker, reply.codes), most_forgotten) + following
        sequences.append(torch.cat([heard, prefix.to(heard.dtype), frames]))
        steps = past.next + torch.arange(len(prefix) + num_frames, dtype=torch.float32)
        positions.append(torch.cat([past.positions, steps.expand(3, -1)], dim=1))
    hidden = _run(talker, sequences, positions)
    spoken = [rows[-len(r.codes) - 1 :] for rows, r in zip(hidden, replies, strict=True)]
    end = torch.tensor([talker.codec_eos_id])
    wanted = torch.cat([torch.cat([reply.codes[:, 0], end]) for reply in replies])
    first = F.cross_entropy(talker.codec_head(torch.cat(spoken)).float(), wanted)
    drawn_from = torch.cat([rows[:-1] for rows in spoken])
    codes = torch.cat([reply.codes for reply in replies])
    chosen = torch.randperm(len(codes))[:RESIDUAL_FRAMES]
    return first, residual_loss(talker, drawn_from[chosen], codes[chosen])


def take_step(
    run: Run, learner: Learner, replies: Sequence[Reply], rows: Rows, speaker_id: int
) -> dict[str, float]:
    """One step on some replies."""
    talker = run.module
    assert isinstance(talker, Talker)
    run.begin_step()
    torch.manual_seed(run.step)
    with quick_types():
        pasts = pasts_of(learner, [reply.past for reply in replies], rows)
        first, residual = replies_loss(
            talker, learner, pasts, replies, speaker_id, most_forgotten=MOST_FORGOTTEN
        )
    (first + residual).backward()  # type: ignore[no-untyped-call]
    run.end_step()
    return {"first": first.item(), "residual": residual.item()}


def _forgetful(frames: Tensor, most: float) -> Tensor:
    """Frames [n, H], some of which are left out or stand in each other's place.

    What is said next nearly follows from what was said last: with that in view a talker learns its
    sentences by heart, and says the wrong one where two begin alike. So it has to read the text.
    """
    share = most * torch.rand(())
    draws = torch.rand(len(frames), 1)
    others = frames[torch.randint(len(frames), (len(frames),))]
    wrong = torch.where(torch.rand(len(frames), 1) < WRONG_SHARE, others, torch.zeros_like(frames))
    return torch.where(draws < share, wrong, frames)


def frame_embeds(talker: Talker, codes: Tensor) -> Tensor:
    """[n, H], the sum of the embeddings of all codes of each frame."""
    total = talker.embed_code(codes[:, 0])
    for group, embedding in enumerate(talker.code_predictor.model.codec_embedding, start=1):
        total = total + embedding(codes[:, group])
    return total


def residual_loss(talker: Talker, hidden: Tensor, codes: Tensor) -> Tensor:
    """hidden: [n, H], what each frame's first code was drawn from."""
    predictor = talker.code_predictor
    inputs = [hidden.float(), talker.embed_code(codes[:, 0])]
    for group in range(1, predictor.num_residuals):
        inputs.append(predictor.model.codec_embedding[group - 1](codes[:, group]))
    outputs = run_batch(predictor.model, torch.stack(inputs, dim=1)).hidden[:, 1:]  # [n, Q - 1, H]
    losses = [
        F.cross_entropy(head(outputs[:, group]).float(), codes[:, group + 1])
        for group, head in enumerate(predictor.lm_head)
    ]
    return torch.stack(losses).mean()


def _run(talker: Talker, sequences: list[Tensor], positions: list[Tensor]) -> list[Tensor]:
    """Hidden states of sequences [n, H] of different lengths."""
    length = max(len(sequence) for sequence in sequences)
    inputs = torch.stack([F.pad(one, (0, 0, 0, length - len(one))) for one in sequences])
    places = torch.stack([F.pad(one, (0, length - one.shape[1])) for one in positions], dim=1)
    output = run_batch(talker.model, inputs, places)
    return [rows[: len(one)] for rows, one in zip(output.hidden, sequences, strict=True)]
