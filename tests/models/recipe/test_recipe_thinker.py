"""Training of the thinker: its batch is what the engine's cache gives, and everything learns."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cache import KvCache
from models.content import Audio, Image, Message, Text
from models.decoder import Deepstack
from models.recipe import acoustics, phrases, thinker, voices
from models.recipe.acting import TOOLS
from models.recipe.dialogues import Answered, Returned, Said, conversation
from models.recipe.drills import SEEING, SERIES
from models.recipe.learner import Learner
from models.recipe.lessons import Classroom, Heard, Lesson, View, in_digits, lesson, training_room
from models.recipe.phonemes import edit_distance, words_alike
from models.recipe.pictures import Scene, Thing, draw, new_camera
from models.recipe.run import Run
from models.recipe.sheets import Sheet, lay_out
from models.recipe.thinker import (
    Rows,
    decoder_of,
    imagine,
    look,
    num_shared,
    perceive,
    read_sheets,
    study,
    take_step,
)

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)
CPU = torch.device("cpu")


def sound(seconds: float = 1.3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(round(16_000 * seconds))).astype(np.float32)


def every_kind() -> Lesson:
    """Sound, a camera, a typed picture, a tool."""
    scene = Scene(things=(Thing(shape="star", colour="red"),))
    view = View(from_s=0.0, scene=scene, camera=new_camera(random.Random(0), (scene,)))
    rgb = draw(scene, view.camera)
    said = Message(role="user", parts=(Audio(pcm=sound()),))
    shown = Message(role="user", parts=(Audio(pcm=sound(2.1), frames=((0.0, rgb), (1.0, rgb))),))
    typed = Message(role="user", parts=(Image(rgb=rgb), Text(text="what colour is this")))
    call = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    return Lesson(
        turns=(
            Heard(message=said, words="hello there"),
            Answered(text="Hello! How can I help you?"),
            Heard(message=shown, words="what is this", views=(view,)),
            Answered(text="I see a red star."),
            Heard(message=typed, words=None, views=(view,)),
            Answered(text=call, is_call=True),
            Returned(text='{"time": "09:10"}'),
            Answered(text="It is nine ten."),
        ),
        instructions="You are a helpful assistant.",
        tools=TOOLS,
    )


def short(learner: Learner) -> Sheet:
    turns = (
        Heard(message=Message(role="user", parts=(Text(text="hello"),)), words=None),
        Answered(text="Hello! How can I help you?"),
    )
    return lay_out(learner, Lesson(turns=turns))


@needs_espeak
@torch.no_grad()
def test_what_sheets_begin_with_in_common_is_computed_once(learner: Learner) -> None:
    room = training_room(None)
    seeds = [seed for seed in range(40) if conversation(seed, "train").offered][:3]
    sheets = [lay_out(learner, lesson(room, seed, 0, system="one")) for seed in seeds]
    shared = num_shared(sheets)
    assert 200 < shared < min(len(sheet.ids) for sheet in sheets)
    assert all(torch.equal(sheet.ids[:shared], sheets[0].ids[:shared]) for sheet in sheets)
    rows = imagine(learner, random.Random(0))(sheets)
    together, _ = read_sheets(learner, sheets, rows)
    sounds = sights = 0
    for number, sheet in enumerate(sheets):
        num_sounds, num_sights = len(sheet.sound_at), len(sheet.sight_at)
        own = Rows(
            sounds=rows.sounds[sounds : sounds + num_sounds],
            sights=rows.sights[sights : sights + num_sights],
        )
        sounds, sights = sounds + num_sounds, sights + num_sights
        alone, length = read_sheets(learner, [sheet], own)
        assert num_shared([sheet]) == 0
        torch.testing.assert_close(
            together.hidden[number, :length], alone.hidden[0], rtol=1e-4, atol=1e-4
        )


@needs_espeak
@torch.no_grad()
def test_a_batch_is_what_the_engines_cache_gives(learner: Learner) -> None:
    model = learner.thinker
    for merger in model.visual.merger_list:
        torch.nn.init.normal_(merger.mlp[2].weight, std=0.05)
    sheets = [short(learner), lay_out(learner, every_kind())]
    rows = perceive(learner, random.Random(0))(sheets)
    output, length = read_sheets(learner, sheets, rows)
    assert length == len(sheets[1].ids)
    for number, sheet in enumerate(sheets):
        media = number * len(sheet.sound_at)
        embeds = model.embed(sheet.ids)
        deepstack = None
        if media:
            embeds = embeds.index_copy(0, sheet.sound_at, rows.sounds)
            embeds = embeds.index_copy(0, sheet.sight_at, rows.sights)
            assert rows.deepstack is not None
            deepstack = Deepstack(index=sheet.sight_at, features=rows.deepstack)
        cache = KvCache(model.model.config, device=CPU, dtype=torch.float32)
        alone = model(embeds, sheet.positions, cache, deepstack=deepstack).hidden
        assert torch.allclose(output.hidden[number, : len(sheet.ids)], alone, atol=1e-4)


def test_replies_are_marked_and_closed(learner: Learner) -> None:
    sheet = lay_out(learner, every_kind())
    ids = sheet.ids.tolist()
    assert len(sheet.replies) == 4
    for start, wanted in sheet.replies:
        assert tuple(ids[start : start + len(wanted)]) == wanted
        assert ids[start - 3 : start] == learner.chat.assistant_header_ids()
        assert wanted[-1] == learner.vocabulary.special_id("<|im_end|>")
    assert sheet.replies[2][1][0] == learner.chat.tool_call_id


def test_media_rows_have_their_places(learner: Learner) -> None:
    sheet = lay_out(learner, every_kind())
    ids, config = sheet.ids, learner.config.thinker
    assert len(sheet.sounds) == 2
    assert sheet.sounds[0].words == tuple(learner.word_ids("hello there"))
    assert [s.has_camera for s in sheet.sounds] == [False, True]
    assert len(sheet.sound_at) == sum(s.num_tokens for s in sheet.sounds)
    assert (ids[sheet.sound_at] == config.audio_id).all()
    assert len(sheet.sight_at) == sum(g.num_tokens for g in sheet.grids)
    assert {int(i) for i in ids[sheet.sight_at]} == {config.video_id, config.image_id}


@needs_espeak
def test_the_decoder_learns_from_imagined_rows(learner: Learner) -> None:
    decoder = decoder_of(learner)
    run = Run.new(decoder, thinker.LANGUAGE_PACE, 0)
    before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    sheets = [lay_out(learner, every_kind()), short(learner)]
    encode = imagine(learner, random.Random(0))
    losses = [take_step(run, learner, sheets, encode)["text"] for _ in range(4)]
    assert losses[-1] < losses[0]
    still = [n for n, p in decoder.named_parameters() if torch.equal(p, before[n])]
    assert still == ["model.embed_tokens.weight"]


def test_the_decoder_learns_behind_encoders_that_stay(learner: Learner) -> None:
    run = Run.new(decoder_of(learner), thinker.PACE, 0)
    before = {name: p.detach().clone() for name, p in learner.thinker.named_parameters()}
    sheets = [lay_out(learner, every_kind())]
    encode = perceive(learner, random.Random(0))
    losses = [take_step(run, learner, sheets, encode)["text"] for _ in range(4)]
    assert losses[-1] < losses[0]
    still = {n for n, p in learner.thinker.named_parameters() if torch.equal(p, before[n])}
    encoders = {n for n in before if n.startswith(("audio_tower.", "visual."))}
    assert still == encoders | {"model.embed_tokens.weight"}


@needs_espeak
def test_what_is_right_is_counted(learner: Learner) -> None:
    sheet = lay_out(learner, every_kind())
    with torch.no_grad():
        outcome = study(learner, [sheet], imagine(learner, random.Random(0))([sheet]))
    assert outcome.num_replies == 4
    assert outcome.num_right == 0
    assert outcome.num_tokens == sum(len(ids) for _, ids in sheet.replies)


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


def test_what_a_conversation_calls_is_always_offered() -> None:
    room = training_room(None)
    counts = set()
    for seed in (seed for seed in range(300) if conversation(seed, "train").offered):
        found = lesson(room, seed, 0)
        offered = {tool["function"]["name"] for tool in found.tools}
        calls = [t.text for t in found.turns if isinstance(t, Answered) and t.is_call]
        inner = [c.removeprefix("<tool_call>").removesuffix("</tool_call>") for c in calls]
        assert {json.loads(call)["name"] for call in inner} <= offered
        counts.add(len(offered))
    assert counts == {1, 2, 3, 4}


def test_people_type_with_capitals_signs_and_digits() -> None:
    room = training_room(None)
    typed = [
        part.text
        for seed in range(1000)
        for turn in lesson(room, seed, 0).turns
        if isinstance(turn, Heard) and turn.words is None
        for part in turn.message.parts
        if isinstance(part, Text)
    ]
    for looks_so in (str.islower, lambda text: text[0].isupper(), lambda text: text[-1] in "?.!"):
        assert sum(map(looks_so, typed)) > len(typed) // 8
    assert any(character.isdigit() for text in typed for character in text)
    assert any(re.search(r"\d [+-] \d", text) for text in typed)
    assert any(name.lower() in text.split() for name in phrases.NAMES for text in typed)
    assert any("color" in text for text in typed)
    assert any("colour" in text for text in typed)


def test_numbers_are_written_in_digits() -> None:
    assert in_digits("set it to twenty one") == "set it to 21"
    assert in_digits("count from one to twenty") == "count from 1 to 20"
    assert in_digits("someone has fifty nine") == "someone has 59"


def test_no_camera_shows_anything_where_a_question_needs_none() -> None:
    room = training_room(None)
    num_dark = 0
    for seed in range(1500):
        found = conversation(seed, "train")
        if not found.is_dark or found.offered:  # which tools there are decides what is asked
            continue
        num_dark += 1
        shown = [turn.views for turn in lesson(room, seed, 0).turns if isinstance(turn, Heard)]
        scenes = sum(len(turn.scenes) for turn in found.turns if isinstance(turn, Said))
        assert sum(map(len, shown)) == scenes
    assert num_dark > 20


@needs_espeak
def test_imagined_lessons_need_no_sound(learner: Learner) -> None:
    room = training_room(None)
    sheets = [lay_out(learner, lesson(room, seed, 0)) for seed in range(12)]
    assert any(len(sheet.sight_at) for sheet in sheets)
    rows = imagine(learner, random.Random(0))(sheets)
    assert len(rows.sounds) == sum(len(sheet.sound_at) for sheet in sheets)
    assert len(rows.sights) == sum(len(sheet.sight_at) for sheet in sheets)
    assert all(float(s.mel.max()) == float(s.mel.min()) for sheet in sheets for s in sheet.sounds)


@needs_espeak
def test_what_is_drawn_is_looked_at_though_sounds_are_imagined(learner: Learner) -> None:
    room = training_room(None, SEEING, is_drawn=True)
    sheets = [lay_out(learner, lesson(room, seed, 0)) for seed in range(3)]
    rows = look(learner, random.Random(0))(sheets)
    assert torch.equal(rows.sights, perceive(learner, random.Random(1))(sheets).sights)
    assert torch.equal(rows.sounds, imagine(learner, random.Random(0))(sheets).sounds)
    assert any(grid.patches.std() > 0.1 for sheet in sheets for grid in sheet.grids)


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


@needs_espeak
def test_words_are_misheard_for_what_sounds_like_them(learner: Learner) -> None:
    ids = {piece: index for index, piece in enumerate(learner.vocabulary.pieces)}
    alike = words_alike(learner)
    assert ids["Ġtree"] in alike[ids["Ġthree"]]
    assert ids["Ġblue"] not in alike[ids["Ġthree"]]
    assert edit_distance((1, 2, 2, 3), (1, 4, 2, 3, 5)) == 2


def test_pictures_of_a_series_are_by_one_camera() -> None:
    room = training_room(None, SERIES)
    for seed in range(20):
        views = [
            v for turn in lesson(room, seed, 0).turns if isinstance(turn, Heard) for v in turn.views
        ]
        assert len({view.camera for view in views}) == 1
