"""Training of the talker with its code predictor: from a reply's text to the codes of its speech.

A reply is one sequence, laid out as the engine lays it out: what the user said (through the trained
thinker, which does not change any more), the prefix that names the voice, then a position for each
frame. The predictor sees all frames of a reply as one batch. Losses are those of the first codes,
the end code among them, and of the residual codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import OmniConfig
from models.pieces import PrefillBatch
from models.prefill import deepstack_of, embed_batch
from models.qwen3_omni.talker import Talker
from models.recipe.batches import build_constants, let_norms_learn, run_batch
from models.recipe.lessons import Lesson
from models.recipe.run import Pace, Run
from models.recipe.thinker import Learner, PassingCache, Sheet, initialise

PACE = Pace(peak_rate=1e-3, warmup_steps=200, rate_halves_after=8000, averaging=0.998)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply: text ids, and its speech as codes [n, num_code_groups]."""

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
def past_of(learner: Learner, lesson: Lesson) -> Past:
    """The user's part of a lesson, as the trained thinker hears it."""
    sheet = Sheet(learner)
    sheet.write(lesson)
    thinker = learner.model.thinker
    batch: PrefillBatch = sheet.log.batch(0, len(sheet.log), thinker.lm_head.weight.device)
    embeds = embed_batch(thinker, batch)
    captured = thinker.model(
        embeds.clone(),
        batch.positions,
        PassingCache(),
        deepstack=deepstack_of(batch),
        capture_layer=thinker.capture_layer,
    ).captured
    rows = batch.talker_rows
    is_media = batch.is_media[rows]
    seen = torch.where(is_media[:, None], captured[rows], embeds[rows])
    return Past(
        embeds=seen, is_media=is_media, positions=batch.talker_positions, next=sheet.talker_next
    )


def reply_losses(
    talker: Talker, learner: Learner, past: Past, reply: Reply, speaker_id: int
) -> tuple[Tensor, Tensor]:
    """Mean loss of the first codes with the end, and of the residual codes."""
    let_norms_learn(talker)
    text = _text_inputs(talker, learner, reply)
    heard = torch.where(
        past.is_media[:, None],
        talker.project_hidden(past.embeds),
        talker.project_text(past.embeds),
    )
    special = talker.special_text(learner.model.thinker.embed, learner.chat.assistant_header_ids())
    prefix = talker.reply_prefix(special, speaker_id, text[0])
    tail = torch.cat([text[1:], special.end[None], special.pad[None]])
    num_frames = len(reply.codes)
    following = tail[torch.arange(num_frames).clamp(max=len(tail) - 1)]
    inputs = torch.cat([heard, prefix, _frame_embeds(talker, reply.codes) + following])
    steps = past.next + torch.arange(len(prefix) + num_frames, dtype=torch.float32)
    positions = torch.cat([past.positions, steps.expand(3, -1)], dim=1)
    hidden = talker.model(inputs, positions, PassingCache()).hidden_states[-num_frames - 1 :]
    wanted = torch.cat([reply.codes[:, 0], torch.tensor([talker.codec_eos_id])])
    first = F.cross_entropy(talker.codec_head(hidden).float(), wanted)
    return first, _residual_loss(talker, hidden[:-1], reply.codes)


def take_step(
    run: Run, learner: Learner, batch: list[tuple[Past, Reply]], speaker_id: int
) -> dict[str, float]:
    """One step on some replies, one after the other."""
    talker = run.module
    assert isinstance(talker, Talker)
    run.begin_step()
    seen = {"first": 0.0, "residual": 0.0}
    for past, reply in batch:
        first, residual = reply_losses(talker, learner, past, reply, speaker_id)
        ((first + residual) / len(batch)).backward()  # type: ignore[no-untyped-call]
        seen["first"] += first.item() / len(batch)
        seen["residual"] += residual.item() / len(batch)
    run.end_step()
    return seen


def _text_inputs(talker: Talker, learner: Learner, reply: Reply) -> Tensor:
    with torch.no_grad():
        embeds = learner.model.thinker.embed(torch.tensor(reply.text_ids))
    return talker.project_text(embeds)


def _frame_embeds(talker: Talker, codes: Tensor) -> Tensor:
    """[n, H], the sum of the embeddings of all codes of each frame."""
    total = talker.embed_code(codes[:, 0])
    for group, embedding in enumerate(talker.code_predictor.model.codec_embedding, start=1):
        total = total + embedding(codes[:, group])
    return total


def _residual_loss(talker: Talker, hidden: Tensor, codes: Tensor) -> Tensor:
    """hidden: [n, H], what each frame's first code was drawn from."""
    predictor = talker.code_predictor
    inputs = [hidden, talker.embed_code(codes[:, 0])]
    for group in range(1, predictor.num_residuals):
        inputs.append(predictor.model.codec_embedding[group - 1](codes[:, group]))
    outputs = run_batch(predictor.model, torch.stack(inputs, dim=1))[:, 1:]  # [n, Q - 1, H]
    losses = [
        F.cross_entropy(head(outputs[:, group]).float(), codes[:, group + 1])
        for group, head in enumerate(predictor.lm_head)
    ]
    return torch.stack(losses).mean()
