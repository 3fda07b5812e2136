"""What an exam asks, before it is spoken."""

from __future__ import annotations

import random

import pytest

from models.recipe import phrases
from models.recipe.dialogues import Answered, Said, all_texts
from models.recipe.exam import drawn_conversation, other_replies
from models.recipe.grammar import expand
from models.recipe.requests import REQUESTS


def test_requests_of_the_exam_are_in_no_lesson() -> None:
    practised = {
        text
        for pattern in (*phrases.OUT_OF_DOMAIN, *phrases.MORE_OUT_OF_DOMAIN, *phrases.NEAR_DOMAIN)
        for text in expand(pattern)
    }
    practised |= {text.lower() for text in all_texts(300)}
    assert len(set(REQUESTS)) == len(REQUESTS) >= 60
    assert not practised & set(REQUESTS)


def test_requests_hold_words_that_the_model_does_not_know() -> None:
    known = {word for text in all_texts(300) for word in text.lower().split()}
    assert all(set(text.split()) - known for text in REQUESTS)


def test_half_of_what_is_to_be_rejected_are_requests() -> None:
    asked, answered = drawn_conversation("rejection", "request", random.Random(3))
    assert isinstance(asked, Said)
    assert asked.text in REQUESTS
    assert isinstance(answered, Answered)
    assert answered.text == phrases.NOT_UNDERSTOOD
    assert other_replies(asked.text) == [phrases.NO_TOOLS]


@pytest.mark.parametrize("said", ["", "wo ist der bahnhof", "hello", "how old is your dog"])
def test_nothing_else_may_be_answered_in_another_way(said: str) -> None:
    assert other_replies(said) == []
