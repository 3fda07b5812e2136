"""Words out of an encoder's rows: which ones, and whether a sentence may end behind them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from models.content import Reading
from models.errors import CheckpointError
from models.word_reading import (
    FILE,
    SpokenWords,
    WordReader,
    count_words,
    read_spoken_words,
    reader_of,
    write_spoken_words,
)

STOP, THE, MUSIC, UNKNOWN, BLANK = range(5)
TABLE = 8 * torch.eye(6)
WORDS = SpokenWords(
    scale=0.25, unknown=UNKNOWN, follows=count_words([(STOP, THE, MUSIC)] * 9 + [(STOP,)])
)


def read(*ids: int) -> Reading:
    """Of rows that say these, one a token."""
    return WordReader(WORDS, TABLE, BLANK).read(TABLE[list(ids)])


def test_repetitions_are_one_word_unless_something_lies_between() -> None:
    assert read(BLANK, STOP, STOP, BLANK, THE).num_words == 2
    assert read(STOP, BLANK, STOP).num_words == 2
    assert read(BLANK, BLANK).num_words == 0
    reading = read(STOP, STOP, BLANK, BLANK, BLANK)
    assert (reading.tokens_of_last, reading.tokens_since) == (1, 3)
    assert reading.sure_last > 0.9
    assert read(STOP, UNKNOWN).unknown_share == 0.5


def test_a_sentence_ends_where_sentences_end() -> None:
    whole, begun = read(STOP, THE, MUSIC), read(STOP, THE)
    assert math.exp(whole.end_after_2) > 0.9 > 0.1 > math.exp(begun.end_after_2)
    assert whole.end > math.log(0.9)
    assert begun.likely_last > math.log(0.5) > read(STOP, MUSIC).likely_last


def test_only_a_checkpoint_that_says_so_writes_words(tmp_path: Path) -> None:
    assert reader_of(tmp_path, TABLE, blank=BLANK) is None
    write_spoken_words(tmp_path, WORDS)
    assert read_spoken_words(tmp_path) == WORDS
    assert reader_of(tmp_path, TABLE, blank=BLANK) is not None


@pytest.mark.parametrize(
    "broken", ["{", '{"scale": 1}', '{"scale": 1, "unknown": 9, "follows": {}}']
)
def test_a_broken_file_is_told(tmp_path: Path, broken: str) -> None:
    (tmp_path / FILE).write_text(broken)
    with pytest.raises(CheckpointError, match=FILE):
        reader_of(tmp_path, TABLE, blank=BLANK)


def test_words_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    foreign = {"scale": 1, "unknown": 0, "follows": {"": {"7": 1}}}
    (tmp_path / FILE).write_text(json.dumps(foreign))
    with pytest.raises(CheckpointError, match="tokens"):
        reader_of(tmp_path, TABLE, blank=BLANK)
