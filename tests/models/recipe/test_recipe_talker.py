"""Training of the talker: its one pass is the engine's steps, and everything learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.cache import KvCache
from models.chat import ChatFormat
from models.config import parse_config
from models.content import Message, Text
from models.qwen3_omni.code_predictor import CodecFrame
from models.qwen3_omni.talker import Talker
from models.recipe.batches import build_constants, run_batch
from models.recipe.dialogues import Answered, all_texts
from models.recipe.lessons import Heard, Lesson
from models.recipe.run import Run
from models.recipe.sizes import CODEBOOK_SIZE, NUM_QUANTIZERS, VOICE, embedded_config
from models.recipe.talker import PACE, Past, Reply, new_talker, past_of, reply_losses, take_step
from models.recipe.thinker import Learner, new_learner
from models.recipe.tokenizer import learn_vocabulary, write_tokenizer

VOCABULARY = learn_vocabulary(all_texts(300))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    raw = embedded_config(VOCABULARY)
    raw["thinker_config"]["text_config"]["num_hidden_layers"] = 2
    raw["talker_config"]["accept_hidden_layer"] = 2
    config = parse_config(raw)
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, VOCABULARY)
    made = new_learner(config, ChatFormat.load(folder, config), VOCABULARY, 0)
    made.model.requires_grad_(False)
    return made


@pytest.fixture
def talker() -> Talker:
    raw = embedded_config(VOCABULARY)
    raw["talker_config"]["text_config"]["num_hidden_layers"] = 2
    return new_talker(parse_config(raw), 0)


def reply(learner: Learner, num_frames: int = 9) -> Reply:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, CODEBOOK_SIZE, (num_frames, NUM_QUANTIZERS), generator=generator)
    return Reply(text_ids=tuple(learner.chat.encode("It is red.")), codes=codes)


def past(learner: Learner) -> Past:
    said = Message(role="user", parts=(Text(text="what colour is this"),))
    heard = Heard(message=said, transcript=None)
    return past_of(learner, Lesson(turns=(heard, Answered(text="It is red.")), has_tools=False))


def test_the_past_is_what_the_user_said(learner: Learner) -> None:
    found = past(learner)
    chat = learner.chat
    ids = [*chat.open_ids("user"), *chat.encode("what colour is this"), *chat.close_ids()]
    assert found.embeds.shape[0] == len(ids)
    assert torch.equal(found.embeds, learner.model.thinker.embed(torch.tensor(ids)))
    assert found.next == len(ids)


@torch.no_grad()
def test_first_codes_are_scored_as_step_by_step(talker: Talker, learner: Learner) -> None:
    build_constants(talker)
    one, before = reply(learner), past(learner)
    cache = KvCache(talker.config.decoder, capacity=64, device=CPU, dtype=torch.float32)
    talker(talker.project_text(before.embeds), before.positions, cache)
    special = talker.special_text(learner.model.thinker.embed, learner.chat.assistant_header_ids())
    text = talker.project_text(learner.model.thinker.embed(torch.tensor(one.text_ids)))
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
        made = CodecFrame(codes, torch.stack(rest).sum(dim=0))
        inputs = talker.embed_frame(made, tail[frame])
    first, _ = reply_losses(talker, learner, before, one, talker.speaker_id(VOICE))
    assert float(first) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


@torch.no_grad()
def test_a_batch_is_each_sequence_alone(talker: Talker) -> None:
    """With norms of queries and keys away from one."""
    predictor = talker.code_predictor
    for name, parameter in predictor.named_parameters():
        if name.endswith("_norm.weight"):
            parameter.add_(0.3 * torch.randn_like(parameter))
    build_constants(talker)
    inputs = torch.randn(3, NUM_QUANTIZERS, talker.config.predictor.hidden_size)
    together = run_batch(predictor.model, inputs)
    for row, expected in zip(inputs, together, strict=True):
        cache = KvCache(predictor.model.config, capacity=8, device=CPU, dtype=torch.float32)
        alone = predictor.model(row, torch.arange(len(row)), cache).hidden_states
        assert torch.allclose(alone, expected, atol=1e-4)


def test_every_weight_learns_and_the_losses_fall(talker: Talker, learner: Learner) -> None:
    run = Run.new(talker, PACE, 0)
    before = {name: p.detach().clone() for name, p in talker.named_parameters()}
    batch = [(past(learner), reply(learner))]
    seen = [take_step(run, learner, batch, talker.speaker_id(VOICE)) for _ in range(6)]
    assert seen[-1]["first"] < seen[0]["first"]
    assert seen[-1]["residual"] < seen[0]["residual"]
    still = {n for n, p in talker.named_parameters() if torch.equal(p, before[n])}
    assert {name for name in still if "hidden_projection" not in name} == set()
