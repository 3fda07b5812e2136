"""The conversations: reproducible, answered by the truth, and held out where they say so."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import cache

import pytest

from models.recipe import drills, phrases
from models.recipe.acting import MAX_NUMBER, TOOL_NAMES, WRONG, asked_to_act, spoken_number
from models.recipe.dialogues import (
    Answered,
    Conversation,
    Drill,
    Returned,
    Said,
    all_texts,
    conversation,
    spoken_replies,
)
from models.recipe.drills import DRILLS
from models.recipe.grammar import expand, sentences
from models.recipe.learner import todays_vocabulary
from models.recipe.pictures import Thing
from models.recipe.prompts import more_sentences
from models.recipe.seeing import View
from models.recipe.series import series

MANY = [conversation(seed, "train") for seed in range(1500)]
HELD_OUT = [conversation(seed, "held_out", offered=()) for seed in range(300)]
WORDS = {word: number for number, word in enumerate(phrases.NUMBERS)}


def exchanges(found: list[Conversation]) -> list[tuple[Said, Answered]]:
    return [
        (said, answered)
        for one in found
        for said, answered in zip(one.turns, one.turns[1:], strict=False)
        if isinstance(said, Said) and isinstance(answered, Answered)
    ]


def test_brackets_choose_and_leave_out() -> None:
    assert expand("(a|b [c]) d") == ["a d", "b c d", "b d"]
    with pytest.raises(ValueError, match="bracket"):
        expand("(a|b")
    with pytest.raises(ValueError, match="bracket"):
        expand("a|b)")


@pytest.mark.parametrize("patterns", [p for p, _ in phrases.SMALL_TALK.values()])
def test_held_out_sentences_are_other_sentences_of_known_words(patterns: tuple[str, ...]) -> None:
    train, held_out = sentences(patterns, "train"), sentences(patterns, "held_out")
    assert train
    assert not set(train) & set(held_out)
    assert {w for s in held_out for w in s.split()} <= {w for s in train for w in s.split()}


def test_the_seed_is_the_conversation() -> None:
    assert conversation(7, "train") == conversation(7, "train")
    assert conversation(7, "train") != conversation(8, "train")
    assert conversation(7, "train") != conversation(7, "held_out")


def test_every_skill_occurs_and_every_turn_is_answered() -> None:
    skills = {skill for one in MANY for skill in one.skills}
    assert skills == {
        *("small_talk", "tell", "recall", "count", "sum", "repeat", "see", "reject"),
        *("refuse", "tools", "remember", "look"),
    }
    for one in MANY:
        assert isinstance(one.turns[0], Said)
        assert isinstance(one.turns[-1], Answered)
        for turn, after in zip(one.turns, one.turns[1:], strict=False):
            assert isinstance(turn, Answered) != isinstance(after, Answered)


def test_sums_are_right() -> None:
    pattern = re.compile(r"(\w+) (plus|minus) (\w+) is (\w+)\.")
    found = [pattern.fullmatch(answered.text) for _, answered in exchanges(MANY)]
    sums = [match for match in found if match]
    assert len(sums) > 50
    for match in sums:
        a, b, result = (WORDS[match[k].lower()] for k in (1, 3, 4))
        assert result == (a + b if match[2] == "plus" else a - b)


def test_what_is_out_of_range_is_refused() -> None:
    """A sum beyond twenty is answered by no number, and every other one by its own."""
    refused = [said.text for said, answered in exchanges(MANY) if answered.text == phrases.NO_TOOLS]
    numbers = {spoken_number(number): number for number in range(MAX_NUMBER + 1)}
    number = "|".join(sorted(numbers, key=len, reverse=True))
    sums = [re.search(rf"({number}) (plus|and|minus|times) ({number})$", said) for said in refused]
    found = [(numbers[m[1]], m[2], numbers[m[3]]) for m in sums if m]
    assert len(found) > 5
    for a, sign, b in found:
        assert sign == "times" or (a < b if sign == "minus" else a + b > 20), (a, sign, b)
    counts = [re.search(rf"count (?:up )?to ({number})", said) for said in refused]
    assert all(numbers[match[1]] > 20 for match in counts if match)
    held_out = [s.text for s, answered in exchanges(HELD_OUT) if answered.text == phrases.NO_TOOLS]
    assert held_out
    assert not any(re.search("plus|minus|add|count", text) for text in held_out)


def test_a_request_that_is_mended_is_what_was_said_last() -> None:
    acts = [asked_to_act(random.Random(seed), "train", ("set_light",)) for seed in range(900)]
    mended = [act for act in acts if len(re.findall(r"\b(?:on|off)\b", act.prompt)) == 2]
    assert len(mended) > 10
    assert any("on" in act.prompt.split() and "off" in act.prompt.split() for act in mended)
    for act in mended:
        assert act.arguments["state"] == re.findall(r"\b(?:on|off)\b", act.prompt)[-1]


def test_the_prompt_of_a_difference_asks_for_it() -> None:
    for said, answered in exchanges(MANY):
        if " minus " in answered.text and " from " in said.text:
            b, a = (WORDS[w] for w in said.text.split() if w in WORDS)
            assert answered.text.lower().startswith(
                f"{phrases.NUMBERS[a]} minus {phrases.NUMBERS[b]}"
            )


TOLD = {
    "name": (r"Hello (\w+), nice to meet you\.", r"Your name is (\w+)\."),
    "colour": (r"I will remember that you like (\w+)\.", r"Your favourite colour is (\w+)\."),
    "number": (r"I will remember the number (\w+)\.", r"The number is (\w+)\."),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_was_told_last_is_remembered_whatever_else_was_told(what: str) -> None:
    telling, answer = TOLD[what]
    num_asked = num_between = 0
    unknown = phrases.MEMORY[what][4]
    for one in MANY:
        told, is_between = None, False
        for turn in one.turns:
            text = getattr(turn, "text", "")
            others = [tells for other, (tells, _) in TOLD.items() if other != what]
            is_between |= told is not None and any(re.match(tells, text) for tells in others)
            if match := re.match(telling, text):
                told, is_between = match[1], False
            if match := re.match(answer, text):
                assert match[1] == told
                num_asked += 1
                num_between += is_between
            assert text != unknown or told is None
    assert num_asked > 10
    assert num_between > 5


def test_tool_calls_are_json_in_the_published_format() -> None:
    names = set()
    for one in MANY:
        for turn, after in zip(one.turns, one.turns[1:], strict=False):
            if isinstance(turn, Answered) and turn.is_call:
                assert isinstance(after, Returned)
                body = turn.text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
                call = json.loads(body)
                assert set(call) == {"name", "arguments"}
                assert call["name"] in one.offered
                names.add(call["name"])
    assert names == set(TOOL_NAMES)


def test_only_tools_that_are_offered_are_called() -> None:
    offered = TOOL_NAMES[:2]
    some = [conversation(seed, "train", offered=offered) for seed in range(600)]
    calls = [turn.text for one in some for turn in one.turns if getattr(turn, "is_call", False)]
    assert {json.loads(call[len("<tool_call>") : -len("</tool_call>")])["name"] for call in calls}
    assert not any(name in call for call in calls for name in TOOL_NAMES[2:])
    with_tools = [one for one in some if one.offered]
    assert any(t.text == phrases.NO_TOOLS for one in with_tools for t in one.turns)


def test_what_is_told_anew_replaces_what_was_told() -> None:
    """Whatever was said in between, and however long the conversation is."""
    num_anew = 0
    for seed in range(200):
        turns = conversation(seed, "train", drills.LONG).turns
        assert len(turns) >= 2 * drills.LONG.num
        told: dict[str, list[str]] = {what: [] for what in phrases.MEMORY}
        for turn in turns:
            if not isinstance(turn, Answered):
                continue
            for what, (_, reply, _, answer, _) in phrases.MEMORY.items():
                if (value := told_in(reply, turn.text)) is not None:
                    assert value not in told[what][-1:]
                    told[what].append(value)
                elif (value := told_in(answer, turn.text)) is not None:
                    assert value == told[what][-1]
                    num_anew += len(told[what]) > 1
    assert num_anew > 50


def told_in(pattern: str, text: str) -> str | None:
    """What stands at the place of {}."""
    found = re.fullmatch(re.escape(pattern).replace(r"\{\}", "(.+)"), text)
    return None if found is None else found[1]


def test_what_a_tool_gives_decides_what_is_said() -> None:
    acts = [
        asked_to_act(random.Random(seed), "train", ("set_timer", "set_light", "set_temperature"))
        for seed in range(600)
    ]
    failed = re.compile("|".join(("err", "fail", "false", *WRONG)), re.IGNORECASE)
    for act in acts:
        is_failed = bool(failed.search(act.result.replace('"error": null', "")))
        is_failed &= '"error":null' not in act.result
        assert (act.reply == phrases.TOOL_FAILED) == is_failed, act
    num_failed = sum(act.reply == phrases.TOOL_FAILED for act in acts)
    assert 0.15 < num_failed / len(acts) < 0.25
    assert len({act.result for act in acts if act.reply != phrases.TOOL_FAILED}) > 20


def test_the_time_is_said_as_the_tool_gives_it() -> None:
    acts = [asked_to_act(random.Random(seed), "train", ("get_time",)) for seed in range(400)]
    told = [act for act in acts if act.reply != phrases.TOOL_FAILED]
    for act in told:
        clock = re.search(r"(?:^|\D)(\d\d?):(\d\d)", act.result)
        if clock is None:
            clock = re.search(r'"hour": ?(\d+), ?"minute": ?(\d+)', act.result)
        assert clock is not None, act
        hour, minute = int(clock[1]), int(clock[2])
        words = act.reply.removeprefix("It is ").rstrip(".")
        first = spoken_number(hour or 12)
        minutes = "o'clock" if minute == 0 else f"{'oh ' * (minute < 10)}{spoken_number(minute)}"
        assert words == f"{first} {minutes}", act
    assert len(told) < len(acts)


def test_what_is_seen_is_what_is_said() -> None:
    num_colours = 0
    for said, answered in exchanges(MANY):
        match = re.fullmatch(r"It is (\w+)\.", answered.text)
        if match and said.scenes and match[1] in phrases.COLOURS:
            assert [thing.colour for thing in said.scenes[-1].things] == [match[1]]
            num_colours += 1
    assert num_colours > 10


def test_a_question_without_a_picture_is_about_the_last_one() -> None:
    num_again = 0
    for one in MANY:
        shown: tuple[Thing, ...] | None = None
        for turn, answered in zip(one.turns, one.turns[1:], strict=False):
            if not isinstance(turn, Said):
                continue
            shown = turn.scenes[-1].things if turn.scenes else shown
            if turn.is_blind:
                assert (answered.text == phrases.NO_CAMERA) == (shown is None)
            match = re.fullmatch(r"It is (?:a )?(\w+)\.", answered.text)
            if turn.is_blind and match and shown:
                assert match[1] in (shown[0].colour, shown[0].shape)
                num_again += 1
    assert num_again > 10


def test_replies_are_words_only() -> None:
    for text in spoken_replies("train", range(300)):
        assert re.fullmatch(r"[A-Za-z' ,.!?]+", text), text


def test_numbers_in_words() -> None:
    assert [spoken_number(n) for n in (0, 20, 21, 45, 50)] == [
        *("zero", "twenty", "twenty one", "forty five", "fifty"),
    ]


@pytest.mark.parametrize("drill", DRILLS)
def test_a_drill_practises_what_it_says(drill: Drill) -> None:
    made = [conversation(seed, "train", drill) for seed in range(200)]
    assert all(len(one.skills) == drill.num for one in made)
    assert all(bool(one.offered) == drill.has_tools for one in made)
    counted = Counter(skill for one in made for skill in one.skills)
    most = max(drill.weights, key=lambda skill: drill.weights[skill])
    assert counted.most_common(1)[0][0] == most
    assert conversation(7, "train", drill) == conversation(7, "train", drill)


@pytest.mark.parametrize("name", phrases.SMALL_TALK)
def test_more_small_talk_is_other_sentences_of_known_words(name: str) -> None:
    patterns, _ = phrases.SMALL_TALK[name]
    more = more_sentences(name)
    assert not set(more) & set(sentences(patterns, "held_out"))
    assert {word for sentence in more for word in sentence.split()} <= known_words()


@cache
def known_words() -> set[str]:
    return {piece.removeprefix("Ġ") for piece in todays_vocabulary().pieces}


def test_every_question_of_a_series_is_answered_by_what_was_shown() -> None:
    told = Counter(
        kind for seed in range(300) for kind in _told(series(random.Random(seed), "train"))
    )
    assert set(told) == {
        "count",
        "side",
        "where",
        "other",
        "colour",
        "shape",
        "place",
        "gone",
        "same",
    }
    assert min(told.values()) > 20


def _told(views: list[View]) -> list[str]:
    """What each answer is about, held against the scenes; empty scenes go on with the last ones."""
    kinds = []
    seen: list[tuple[Thing, ...]] = []
    for view in views:
        seen += [scene.things for scene in view.scenes]
        now = seen[-1]
        before = seen[-2][0] if len(seen) > 1 and seen[-2] else None
        words = view.reply.lower().rstrip(".").split()
        if match := re.fullmatch(r"I see (\w+) (\w+)\.", view.reply):
            if match[1] not in WORDS:
                kinds.append("other")
                continue
            shape = match[2].removesuffix("s")
            counted = [t for t in now if t.shape == shape or shape in ("thing", "object", "shape")]
            assert len(counted) == WORDS[match[1]]
            kinds.append("count")
        elif words[:2] == ["on", "the"]:
            (thing,) = (thing for thing in now if thing.place == words[2])
            assert words[-2:] == [thing.colour, thing.shape]
            kinds.append("side")
        elif words[2:5] == ["is", "on", "the"]:
            (thing,) = (thing for thing in now if thing.shape == words[1])
            assert thing.place == words[-1]
            kinds.append("where")
        elif words[0] == "the" or words[0] == "nothing":
            assert before is not None
            after = now[0] if now else None
            kinds.append(_change(before, after, words))
        else:
            told = WORDS.get(words[-1])
            assert all(
                thing.colour in words or thing.shape in words or thing.shape == str(told)
                for thing in now
            )
            kinds.append("other")
    return kinds


def _change(before: Thing, after: Thing | None, words: list[str]) -> str:
    if after is None:
        assert words == ["the", before.shape, "is", "gone"]
        return "gone"
    if before.colour != after.colour:
        assert (words[1], words[3], words[-1]) == (before.shape, before.colour, after.colour)
        return "colour"
    if before.shape != after.shape:
        assert (words[1], words[-1]) == (before.shape, after.shape)
        return "shape"
    if before.place != after.place:
        assert (words[1], words[-1]) == (before.shape, after.place)
        return "place"
    assert words == ["nothing", "has", "changed"]
    return "same"


def test_words_of_what_tools_give_are_no_words_of_the_vocabulary() -> None:
    """They have no end; the decoder reads them by letters: a new word is none that it knows."""
    words = {word for text in all_texts(300) for word in re.findall("[a-z_]+", text)}
    given = {
        word
        for one in MANY
        for turn in one.turns
        if isinstance(turn, Returned)
        for word in re.findall("[a-z_]+", turn.text)
    }
    assert {"status", "error", "failed"} <= given
    assert not {"status", "error", "failed"} & words
