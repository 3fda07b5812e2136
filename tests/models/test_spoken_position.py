"""The estimated place of a voice in its text, beside the word times that a synthesizer tells."""

from __future__ import annotations

import shutil
from itertools import pairwise

import pytest

from models.spoken_position import SpokenText
from pipeline.synthetic import voices
from pipeline.synthetic.voices import Voice

TEXTS = (
    "The capital of France is Paris. It lies on the river Seine and has about two million people.",
    "Yes, of course. I will remind you tomorrow morning at seven, and again at half past eight.",
    "That is a good question, and the answer depends on where you are, and what you want to do.",
)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_the_place_is_right_within_a_word(text: str, voice: str) -> None:
    clip = voices.say(text, Voice(program="flite", name=voice))
    spoken = SpokenText()
    spoken.grow(text)
    num_right = 0
    for percent in range(5, 100, 5):
        true = sum(end <= len(clip.pcm) * percent / 100 for end in clip.word_ends)
        kept = text[: spoken.chars_at(spoken.effort * percent / 100) + 1].split(" ")
        num_right += abs(len(kept) - 1 - true) <= 1
    assert num_right >= 18  # of 19 moments


def test_text_that_grows_is_measured_as_if_it_had_come_at_once() -> None:
    whole, grown = SpokenText(), SpokenText()
    whole.grow(TEXTS[0])
    for end in (0, 3, 31, 32, 90, len(TEXTS[0])):
        grown.grow(TEXTS[0][:end])
    efforts = [whole.effort * i / 20 for i in range(21)]
    places = [whole.chars_at(effort) for effort in efforts]
    assert places == [grown.chars_at(effort) for effort in efforts]
    assert all(a <= b for a, b in pairwise(places))
    assert (places[0], places[-1]) == (0, len(TEXTS[0]))
    assert SpokenText().chars_at(5.0) == 0


def test_a_full_stop_inside_a_number_is_no_breath() -> None:
    number, sentences = SpokenText(), SpokenText()
    number.grow("3.5 m")
    sentences.grow("3. 5m")
    assert number.effort < sentences.effort
