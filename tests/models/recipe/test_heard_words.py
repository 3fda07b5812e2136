"""Words are found where they were said, and imagined sentences are made of what was heard."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from models.qwen3_omni.mel import LogMel
from models.recipe.heard_words import SPAN, HeardWords, aligned, hear_words
from models.recipe.hearing import ears_of
from models.recipe.imagined import imagined_rows
from models.recipe.learner import Learner
from models.recipe.lessons import lesson, training_room
from models.recipe.sheets import lay_out
from models.recipe.utterances import Utterance
from tests.models.recipe.test_hearing import needs_espeak

BLANK = 0


def written(*best: int) -> np.ndarray:
    """Log probabilities of tokens that mostly say these."""
    chances = np.full((len(best), 4), 0.05, np.float32)
    chances[np.arange(len(best)), best] = 0.85
    return np.log(chances)


@pytest.mark.parametrize(
    ("best", "ids", "expected"),
    [
        ((0, 1, 0, 0, 2, 0), (1, 2), [1, 4]),
        ((1, 2, 3), (1, 2, 3), [0, 1, 2]),
        ((0, 1, 0, 1, 0), (1, 1), [1, 3]),
        ((1, 1, 0, 1), (1, 1), [0, 3]),
        ((0, 0, 3, 0), (), []),
        ((1, 1), (1, 1), []),  # two of one word need a token between
        ((1,), (1, 2), []),
    ],
)
def test_each_word_is_where_it_was_written(
    best: tuple[int, ...], ids: tuple[int, ...], expected: list[int]
) -> None:
    assert aligned(written(*best), ids, BLANK) == expected


def test_a_word_that_was_written_as_another_is_found_between_its_neighbours() -> None:
    assert aligned(written(0, 1, 0, 3, 0, 2), (1, 1, 2), BLANK)[1] == 3


@needs_espeak
def test_every_word_is_kept_as_it_was_heard(learner: Learner, tmp_path: Path) -> None:
    pcm = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    ids = tuple(learner.word_ids("what is your name"))
    clip = Utterance(mel=LogMel().raw_clip(pcm.astype(np.float32)).half(), ids=ids)
    heard = hear_words(ears_of(learner), [clip, clip], random.Random(0))
    assert heard.words.tolist() == [*ids, *ids]
    assert heard.rows.shape == (8, SPAN, learner.table.shape[1])
    first, again = heard.rows.view(2, 4, SPAN, -1)
    assert not torch.equal(first, again), "both were disturbed alike"
    assert heard.draw(-1, random.Random(0)) is None
    heard.save(tmp_path / "heard.pt", 7)
    kept = HeardWords.load(tmp_path / "heard.pt", 7)
    assert kept is not None
    assert torch.equal(kept.rows, heard.rows)
    assert HeardWords.load(tmp_path / "heard.pt", 8) is None
    assert HeardWords.load(tmp_path / "none.pt", 7) is None


@needs_espeak
@torch.no_grad()
def test_a_part_of_the_imagined_sounds_is_made_of_heard_words(learner: Learner) -> None:
    room = training_room(None)
    sheets = [lay_out(learner, lesson(room, seed, 0)) for seed in range(12)]
    words = sorted({word for sheet in sheets for sound in sheet.sounds for word in sound.words})
    marks = torch.zeros(len(words), SPAN, learner.table.shape[1])
    marks[:, SPAN // 2, 0] = 1000.0  # no embedding has such a value
    heard = HeardWords.of(marks.half(), torch.tensor(words))
    num_sounds = num_marked = 0
    for number, sheet in enumerate(sheets):
        rows, _ = imagined_rows(learner, sheet, random.Random(number), heard)
        assert rows.shape == (sum(sound.num_tokens for sound in sheet.sounds), marks.shape[2])
        parts = torch.split(rows, [sound.num_tokens for sound in sheet.sounds])
        for part, sound in zip(parts, sheet.sounds, strict=True):
            count = int((part[:, 0] > 500).sum())
            assert count in (0, min(len(sound.words), sound.num_tokens))
            num_sounds += bool(sound.words)
            num_marked += count > 0
    assert 0.25 < num_marked / num_sounds < 0.75


@needs_espeak
@torch.no_grad()
def test_what_is_not_the_models_is_imagined_as_it_was_once_heard(learner: Learner) -> None:
    sheets = [lay_out(learner, lesson(training_room(None), seed, 0)) for seed in range(150)]
    clip = torch.full((5, learner.table.shape[1]), 1000.0)
    heard = HeardWords.of(torch.zeros(0, SPAN, clip.shape[1]), torch.zeros(0).long(), [clip.half()])
    num_strange = num_marked = 0
    for number, sheet in enumerate(sheets):
        rows, _ = imagined_rows(learner, sheet, random.Random(number), heard)
        parts = torch.split(rows, [sound.num_tokens for sound in sheet.sounds])
        for part, sound in zip(parts, sheet.sounds, strict=True):
            is_strange = learner.unknown_id in sound.words
            count = int((part[:, 0] > 500).sum())
            assert count in ((0, min(len(clip), sound.num_tokens)) if is_strange else (0,))
            num_strange += is_strange
            num_marked += count > 0
    assert num_strange > 5
    assert 0.3 < num_marked / num_strange < 0.9
