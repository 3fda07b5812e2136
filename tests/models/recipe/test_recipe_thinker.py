"""Training of the thinker: one pass is what the engine's cache gives, and everything learns."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.cache import KvCache
from models.chat import ChatFormat
from models.config import parse_config
from models.content import Audio, Image, Message, Text
from models.prefill import deepstack_of, embed_batch
from models.recipe import acoustics, thinker, voices
from models.recipe.dialogues import Answered, Returned, all_texts, conversation
from models.recipe.lessons import Classroom, Heard, Lesson, lesson, training_room
from models.recipe.pictures import Scene, Thing, draw, new_camera
from models.recipe.run import Run
from models.recipe.sizes import embedded_config
from models.recipe.thinker import Learner, new_learner, study, take_step
from models.recipe.tokenizer import learn_vocabulary, write_tokenizer

VOCABULARY = learn_vocabulary(all_texts(300))


def small_config() -> dict[str, Any]:
    raw = embedded_config(VOCABULARY)
    thinker_config = raw["thinker_config"]
    thinker_config["text_config"]["num_hidden_layers"] = 2
    thinker_config["audio_config"]["encoder_layers"] = 1
    thinker_config["vision_config"]["depth"] = 2
    return raw


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    config = parse_config(small_config())
    write_tokenizer(tmp_path, VOCABULARY)
    return new_learner(config, ChatFormat.load(tmp_path, config), VOCABULARY, 0)


def sound(seconds: float = 1.3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(round(16_000 * seconds))).astype(np.float32)


def every_kind() -> Lesson:
    """Sound, a camera, a typed picture, a tool."""
    scene = Scene(things=(Thing(shape="star", colour="red"),))
    rgb = draw(scene, new_camera(random.Random(0), (scene,)))
    said = Message(role="user", parts=(Audio(pcm=sound()),))
    shown = Message(role="user", parts=(Audio(pcm=sound(2.1), frames=((0.0, rgb), (1.0, rgb))),))
    typed = Message(role="user", parts=(Image(rgb=rgb), Text(text="what colour is this")))
    call = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    return Lesson(
        turns=(
            Heard(message=said, transcript="hello there"),
            Answered(text="Hello! How can I help you?"),
            Heard(message=shown, transcript="what is this"),
            Answered(text="I see a red star."),
            Heard(message=typed, transcript=None),
            Answered(text=call, is_call=True),
            Returned(text='{"time": "09:10"}'),
            Answered(text="It is nine ten."),
        ),
        has_tools=True,
    )


def test_one_pass_is_what_the_engines_cache_gives(learner: Learner) -> None:
    sheet = thinker.Sheet(learner)
    with torch.no_grad():
        sheet.write(every_kind())
        model = learner.model.thinker
        whole = sheet.log.batch(0, len(sheet.log), torch.device("cpu"))
        expected = model.model(
            embed_batch(model, whole),
            whole.positions,
            thinker.PassingCache(),
            deepstack=deepstack_of(whole),
        ).hidden_states
        cache = KvCache(
            model.model.config, capacity=64, device=torch.device("cpu"), dtype=torch.float32
        )
        parts = []
        while cache.length < len(sheet.log):
            batch = sheet.log.batch(cache.length, 100, torch.device("cpu"))
            out = model(
                embed_batch(model, batch), batch.positions, cache, deepstack=deepstack_of(batch)
            )
            parts.append(out.hidden)
    assert torch.allclose(torch.cat(parts), expected, atol=1e-4)


def test_replies_are_marked_and_closed(learner: Learner) -> None:
    sheet = thinker.Sheet(learner)
    with torch.no_grad():
        sheet.write(every_kind())
    ids = sheet.log.ids()
    assert len(sheet.replies) == 4
    for start, wanted in sheet.replies:
        assert ids[start : start + len(wanted)] == wanted
        assert ids[start - 3 : start] == learner.chat.assistant_header_ids()
        assert wanted[-1] == VOCABULARY.special_id("<|im_end|>")
    assert sheet.replies[2][1][0] == VOCABULARY.special_id("<tool_call>")
    assert len(sheet.heard) == 2


def test_every_weight_learns_and_the_loss_falls(learner: Learner) -> None:
    run = Run.new(learner.model, thinker.PACE, 0)
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    losses = [take_step(run, learner, [every_kind()])["text"] for _ in range(4)]
    assert losses[-1] < losses[0]
    still = [n for n, p in learner.model.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_what_is_right_is_counted(learner: Learner) -> None:
    with torch.no_grad():
        outcome = study(learner, every_kind())
    assert outcome.num_replies == 4
    assert outcome.num_right == 0


def test_a_lesson_is_its_seed_and_its_epoch(tmp_path: Path) -> None:
    """Conversations of noise and typed text need no synthesizer."""
    room = Classroom(
        split="train",
        voice=voices.random_voice,
        conditions=acoustics.Conditions(),
        folder=tmp_path,
    )
    seeds = [s for s in range(400) if conversation(s, "train").skills == ("reject",)]
    quiet = [s for s in seeds if not conversation(s, "train").turns[0].text]
    assert quiet
    first, again, later = (lesson(room, quiet[0], epoch) for epoch in (0, 0, 1))
    assert np.array_equal(_pcm(first), _pcm(again))
    assert not np.array_equal(_pcm(first), _pcm(later))


@pytest.mark.skipif(bool(voices.missing_programs()), reason="flite or espeak-ng is not installed")
def test_lessons_of_many_seeds(tmp_path: Path) -> None:
    for seed in range(6):
        found = lesson(training_room(tmp_path), seed, 0)
        assert isinstance(found.turns[0], Heard)
        assert isinstance(found.turns[-1], Answered)


def _pcm(found: Lesson) -> np.ndarray:
    turn = found.turns[0]
    assert isinstance(turn, Heard)
    part = turn.message.parts[0]
    assert isinstance(part, Audio)
    return part.pcm
