"""Training of the talker: its one pass is the engine's steps, and everything learns."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from models.cache import KvCache
from models.config import parse_config
from models.content import Message, Text
from models.qwen3_omni.talker import Talker
from models.recipe.batches import build_constants, run_batch
from models.recipe.dialogues import Answered
from models.recipe.learner import Learner
from models.recipe.lessons import Heard, Lesson
from models.recipe.run import Run
from models.recipe.sheets import lay_out
from models.recipe.sizes import CODEBOOK_SIZE, NUM_QUANTIZERS, VOICE
from models.recipe.talker import (
    PACE,
    Past,
    Reply,
    new_talker,
    pasts_of,
    replies_loss,
    take_step,
)
from models.recipe.thinker import Rows
from tests.models.recipe.conftest import small_config

CPU = torch.device("cpu")


@pytest.fixture
def talker() -> Talker:
    return new_talker(parse_config(small_config()), 0)


def reply(learner: Learner, num_frames: int = 9) -> Reply:
    generator = torch.Generator().manual_seed(num_frames)
    codes = torch.randint(0, CODEBOOK_SIZE, (num_frames, NUM_QUANTIZERS), generator=generator)
    said = Message(role="user", parts=(Text(text="what colour is this"),))
    before = Lesson(turns=(Heard(message=said, words=None), Answered(text="It is red.")))
    ids = tuple(learner.chat.encode("It is red."))
    return Reply(past=lay_out(learner, before), text_ids=ids, codes=codes)


def no_rows(learner: Learner) -> Rows:
    none = torch.zeros(0, learner.table.shape[1])
    return Rows(sounds=none, sights=none)


def past(learner: Learner) -> Past:
    (found,) = pasts_of(learner, [reply(learner).past], no_rows(learner))
    return found


def test_the_past_is_what_the_user_said(learner: Learner) -> None:
    found = past(learner)
    chat = learner.chat
    ids = [*chat.open_ids("user"), *chat.encode("what colour is this"), *chat.close_ids()]
    assert found.embeds.shape[0] == len(ids)
    assert torch.equal(found.embeds, learner.thinker.embed(torch.tensor(ids)))
    assert found.next == len(ids)


@torch.no_grad()
def test_first_codes_are_scored_as_step_by_step(talker: Talker, learner: Learner) -> None:
    build_constants(talker)
    one, before = reply(learner), past(learner)
    cache = KvCache(talker.config.decoder, device=CPU, dtype=torch.float32)
    talker(talker.project_text(before.embeds), before.positions, cache)
    special = talker.special_text(learner.thinker.embed, learner.chat.assistant_header_ids())
    text = talker.project_text(learner.thinker.embed(torch.tensor(one.text_ids)))
    tail = [*text[1:], special.end, *[special.pad] * len(one.codes)]
    inputs = talker.reply_prefix(special, talker.speaker_id(VOICE), text[0])
    losses, position = [], before.next
    for frame in range(len(one.codes) + 1):
        steps = position + torch.arange(len(inputs), dtype=torch.float32)
        scores = talker.codec_head(talker(inputs, steps, cache)[-1]).log_softmax(dim=0)
        position += len(inputs)
        if frame == len(one.codes):
            losses.append(-scores[talker.codec_eos_id])
            break
        codes = one.codes[frame]
        losses.append(-scores[codes[0]])
        tables = talker.code_predictor.model.codec_embedding
        rest = [table(code) for table, code in zip(tables, codes[1:], strict=True)]
        residual = torch.stack(rest).sum(dim=0)
        inputs = talker.embed_frames(codes[:1], residual, tail[frame])
    speaker = talker.speaker_id(VOICE)
    first, _ = replies_loss(talker, learner, [before], [one], speaker)
    assert float(first) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    other = reply(learner, 4)
    (alone, _), (both, _) = (
        replies_loss(talker, learner, [before] * len(some), some, speaker)
        for some in ([other], [one, other])
    )
    assert float(both) == pytest.approx(float(10 * first + 5 * alone) / 15, rel=1e-4)


@torch.no_grad()
def test_frames_are_forgotten_where_it_is_asked_for(talker: Talker, learner: Learner) -> None:
    build_constants(talker)
    one, before, speaker = reply(learner), past(learner), talker.speaker_id(VOICE)

    def first(seed: int, most: float) -> float:
        torch.manual_seed(seed)
        loss, _ = replies_loss(talker, learner, [before], [one], speaker, most_forgotten=most)
        return float(loss)

    assert first(0, 0.0) == first(1, 0.0)
    assert len({first(0, 0.0), first(0, 1.0), first(1, 1.0)}) == 3


@torch.no_grad()
def test_a_batch_is_each_sequence_alone(talker: Talker) -> None:
    """With norms of queries and keys away from one."""
    predictor = talker.code_predictor
    for name, parameter in predictor.named_parameters():
        if name.endswith("_norm.weight"):
            parameter.add_(0.3 * torch.randn_like(parameter))
    build_constants(talker)
    inputs = torch.randn(3, NUM_QUANTIZERS, talker.config.predictor.hidden_size)
    together = run_batch(predictor.model, inputs).hidden
    for row, expected in zip(inputs, together, strict=True):
        cache = KvCache(predictor.model.config, device=CPU, dtype=torch.float32)
        alone = predictor.model(row, torch.arange(len(row)), cache).hidden_states
        assert torch.allclose(alone, expected, atol=1e-4)


def test_every_weight_learns_and_the_losses_fall(talker: Talker, learner: Learner) -> None:
    run = Run.new(talker, PACE, 0)
    before = {name: p.detach().clone() for name, p in talker.named_parameters()}
    seen = [
        take_step(run, learner, [reply(learner)], no_rows(learner), talker.speaker_id(VOICE))
        for _ in range(16)
    ]
    for loss in ("first", "residual"):  # of a reply whose frames are hidden by chance
        assert fmean(step[loss] for step in seen[-3:]) < fmean(step[loss] for step in seen[:3])
    still = {n for n, p in talker.named_parameters() if torch.equal(p, before[n])}
    assert {name for name in still if "hidden_projection" not in name} == set()
