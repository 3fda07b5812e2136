"""The conversations that the embedded model learns, drawn from a seed.

A conversation is a list of messages as the model sees them: what the user says (to be synthesised,
or typed), what his camera sees (to be drawn), what the assistant answers, the tools it calls and
their results. Skills are mixed within one conversation, because memory means to answer after other
talk. Prompts of the held-out split are sentences that training never has. Makes no sound and no
picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from models.recipe import phrases
from models.recipe.acting import (
    MAX_NUMBER,
    TOOL_NAMES,
    asked_to_act,
    beyond_reach,
    spoken_number,
)
from models.recipe.grammar import Split, expand, sentences
from models.recipe.more_talk import MORE_TALK
from models.recipe.pictures import Scene
from models.recipe.prompts import drawn_prompt, more_sentences
from models.recipe.seeing import ask_again, seeing
from models.recipe.series import series
from models.recipe.tokenizer import MIN_COUNT

Sound = Literal["speech", "foreign", "noise"]
RECALL_OFTEN = 6
TOOLS_OFTEN = 4
REJECT_OFTEN = 2
MORE_SHARE = 0.4  # of small talk in training
TYPED_NAMES_SHARE = 0.5
ANEW_SHARE = 0.4  # of what is told: it was told before, and is another now
LONG_COUNT_SHARE = 0.25  # to more than twelve
AGAIN_SHARE = 0.35  # of questions about what is seen: there is a picture already
BLIND_SHARE = 0.08
APART_SHARE = 0.5  # of what changed: since the turn before, not within one
LACKING_SHARE = 0.1  # of requests where some tools are not offered: for one of those
BEYOND_SHARE = 0.07  # of numbers in training: out of the range that it knows
MORE_OUT_SHARE = 0.5  # of speech in training that is of no use: as people ask assistants


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A user's turn.

    Attributes:
        text: the words; of noise, none.
        sound: what is heard where it is spoken. language: of a foreign sentence.
        scenes: what the camera sees while it is said, one after the other; none: nothing that
            matters. is_blind: no camera must show anything else, now or before.
        is_typed: it is never spoken.
    """

    text: str
    sound: Sound = "speech"
    language: str = "en"
    scenes: tuple[Scene, ...] = ()
    is_blind: bool = False
    is_typed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An assistant's turn: `text` as the model writes it; is_call: it is a tool call."""

    text: str
    is_call: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a tool gave, as it gave it: as a rule JSON."""

    text: str


Turn = Said | Answered | Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns in order; every `Said` or `Returned` is followed by an `Answered`.

    `skills` names what each exchange trains; offered: names of the tools in the system part.
    """

    turns: tuple[Turn, ...]
    skills: tuple[str, ...]
    offered: tuple[str, ...] = ()

    @property
    def is_dark(self) -> bool:
        """Whether no camera may show what was not asked for."""
        return any(isinstance(turn, Said) and turn.is_blind for turn in self.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What is practised in place of the usual mixture: how often which skill, `num` times.

    is_terse: as a rule typed, and of small pictures, so that little is read for what is learnt.
    """

    weights: Mapping[str, float]
    num: int
    has_tools: bool = False
    is_terse: bool = False


@dataclass(slots=True, kw_only=True)
class Past:
    """What has been told and shown so far in a conversation, and the tools that it has."""

    told: dict[str, str] = field(default_factory=dict)
    shown: Scene | None = None
    offered: tuple[str, ...] = ()


Exchange = list[Turn]


def conversation(
    seed: int, split: Split, drill: Drill | None = None, offered: tuple[str, ...] = TOOL_NAMES
) -> Conversation:
    """The conversation of this seed, one to four exchanges, or those of a drill.

    offered: names of the tools that it has, where it has any.
    """
    chance = random.Random(f"{split} {seed}")
    has_tools = chance.random() < 0.28
    num = chance.choice((1, 1, 1, 1, 2, 2, 2, 3, 4))
    if drill is not None:
        has_tools, num = drill.has_tools, drill.num
    past = Past(offered=offered if has_tools else ())
    turns: list[Turn] = []
    skills: list[str] = []
    for _ in range(num):
        skill = _choose_skill(chance, past, WEIGHTS if drill is None else drill.weights)
        turns += SKILLS[skill](chance, past, split)
        skills.append(skill)
    return Conversation(turns=tuple(turns), skills=tuple(skills), offered=past.offered)


def spoken_replies(split: Split, seeds: range) -> list[str]:
    """Every different text that is spoken in these conversations, in order of appearance."""
    found: dict[str, None] = {}
    for seed in seeds:
        for turn in conversation(seed, split).turns:
            if isinstance(turn, Answered) and not turn.is_call:
                found.setdefault(turn.text)
    return list(found)


def _choose_skill(chance: random.Random, past: Past, usual: Mapping[str, float]) -> str:
    names = [name for name in SKILLS if name != "tools" or past.offered]
    weights = dict(usual)
    if past.told:  # ask while there is something to remember
        weights["recall"] *= RECALL_OFTEN
    if past.offered:  # their description is long: use them while they are there
        weights["tools"] *= TOOLS_OFTEN
        weights["reject"] *= REJECT_OFTEN  # and not for everything
    return chance.choices(names, [weights[name] for name in names])[0]


# ------------------------------------------------------------------------------------- skills
def _small_talk(chance: random.Random, past: Past, split: Split) -> Exchange:
    name = chance.choice(list(phrases.SMALL_TALK))
    patterns, reply = phrases.SMALL_TALK[name]
    if split == "train" and chance.random() < MORE_SHARE:
        return _plain(chance.choice(more_sentences(name)), reply)
    return _plain(drawn_prompt(chance, patterns, split), reply)


def _tell(chance: random.Random, past: Past, split: Split) -> Exchange:
    is_anew = bool(past.told) and chance.random() < ANEW_SHARE
    return tell(chance, past, split, chance.choice(list(past.told if is_anew else phrases.MEMORY)))


def tell(chance: random.Random, past: Past, split: Split, what: str) -> Exchange:
    """One of `phrases.MEMORY` is told; where it was told before, another one."""
    tells, reply, *_ = phrases.MEMORY[what]
    value = chance.choice([one for one in _VALUES[what] if one != past.told.get(what)])
    past.told[what] = value
    said = drawn_prompt(chance, tells, split).format(value)
    is_typed = split == "train" and what == "name" and chance.random() < TYPED_NAMES_SHARE
    return [Said(text=said, is_typed=is_typed), Answered(text=reply.format(value))]


def _recall(chance: random.Random, past: Past, split: Split) -> Exchange:
    is_told = bool(past.told) and chance.random() < 0.8
    what = chance.choice(list(past.told) if is_told else list(phrases.MEMORY))
    return recall(chance, past, split, what)


def recall(chance: random.Random, past: Past, split: Split, what: str) -> Exchange:
    """One of `phrases.MEMORY` is asked for, told or not."""
    _, _, asks, answer, unknown = phrases.MEMORY[what]
    told = past.told.get(what)
    return _plain(drawn_prompt(chance, asks, split), answer.format(told) if told else unknown)


def _remember(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Several things are told, perhaps one of them anew, and some asked for, in any order."""
    facts = chance.sample(list(phrases.MEMORY), chance.choice((2, 2, 3)))
    made = [turn for what in facts for turn in tell(chance, past, split, what)]
    if chance.random() < ANEW_SHARE:
        made += tell(chance, past, split, chance.choice(facts))
    if chance.random() < 0.4:
        made += _small_talk(chance, past, split)
    for what in chance.sample(list(phrases.MEMORY), chance.choice((1, 2, 3))):
        made += recall(chance, past, split, what)
    return made


def _count(chance: random.Random, past: Past, split: Split) -> Exchange:
    if split == "train" and chance.random() < BEYOND_SHARE:
        beyond = spoken_number(chance.randint(21, MAX_NUMBER))
        return _plain(drawn_prompt(chance, phrases.COUNT, split).format(beyond), phrases.NO_TOOLS)
    stop = chance.randint(13, 20) if chance.random() < LONG_COUNT_SHARE else chance.randint(2, 12)
    counted = ", ".join(phrases.NUMBERS[1 : stop + 1]).capitalize() + "."
    return _plain(drawn_prompt(chance, phrases.COUNT, split).format(phrases.NUMBERS[stop]), counted)


def _sum(chance: random.Random, past: Past, split: Split) -> Exchange:
    if split == "train" and chance.random() < BEYOND_SHARE:
        return _plain(_beyond_sum(chance), phrases.NO_TOOLS)
    names = phrases.NUMBERS
    if chance.random() < 0.6:
        total = chance.randint(1, 20)
        a = chance.randint(0, total)
        patterns, word, b, result = phrases.SUM, "plus", total - a, total
    else:
        a = chance.randint(1, 20)
        b = chance.randint(0, a)
        patterns, word, result = phrases.DIFFERENCE, "minus", a - b
    prompt = drawn_prompt(chance, patterns, split).format(a=names[a], b=names[b])
    return _plain(prompt, f"{names[a].capitalize()} {word} {names[b]} is {names[result]}.")


def _beyond_sum(chance: random.Random) -> str:
    """More than twenty, less than nothing, or another kind of sum."""
    draw = chance.random()
    if draw < 0.25:
        numbers = {key: phrases.NUMBERS[chance.randint(1, 12)] for key in ("a", "b")}
        return chance.choice(expand(phrases.BEYOND_SUM)).format(**numbers)
    if draw < 0.4:
        small = chance.randint(0, 19)
        a, b = small, chance.randint(small + 1, 20)
        patterns = phrases.DIFFERENCE
    else:
        total = chance.randint(21, MAX_NUMBER) if draw < 0.8 else chance.randint(21, 25)
        a = chance.randint(max(1, total - MAX_NUMBER), total - 1)
        b, patterns = total - a, phrases.SUM
    return chance.choice(sentences(patterns, "train")).format(
        a=spoken_number(a), b=spoken_number(b)
    )


def _repeat(chance: random.Random, past: Past, split: Split) -> Exchange:
    text = chance.choice(sentences((chance.choice(phrases.REPEATED),), split))
    prompt = drawn_prompt(chance, phrases.REPEAT, split, is_open=True).format(text)
    return _plain(prompt, _as_written(text))


def _echo(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Words that make no sentence, so that nothing helps but to say what was heard."""
    firsts, words = _repeated_words()
    text = " ".join([chance.choice(firsts), *chance.sample(words, chance.randint(1, 4))])
    prompt = drawn_prompt(chance, phrases.REPEAT, split, is_open=True).format(text)
    return _plain(prompt, _as_written(text))


@cache
def _repeated_words() -> tuple[list[str], list[str]]:
    """Words that sentences to repeat begin with, and all others."""
    found = [text.split() for text in sentences(phrases.REPEATED, "train")]
    firsts = sorted({words[0] for words in found})
    return firsts, sorted({word for words in found for word in words[1:]})


def _see(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Asked about a new picture, about the last one again, or where there was none."""
    draw = chance.random()
    if past.shown is not None and draw < AGAIN_SHARE:
        return see_again(chance, past.shown, split)
    view = seeing(chance, split)
    if past.shown is None and draw < BLIND_SHARE:
        return [Said(text=view.prompt, is_blind=True), Answered(text=phrases.NO_CAMERA)]
    past.shown = view.scenes[-1]
    if len(view.scenes) > 1 and chance.random() < APART_SHARE:
        before, after = view.scenes[:-1], view.scenes[-1:]
        prompt, reply = ask_again(chance, split, before[-1])
        return [
            *(Said(text=prompt, scenes=before), Answered(text=reply)),
            *(Said(text=view.prompt, scenes=after), Answered(text=view.reply)),
        ]
    return [Said(text=view.prompt, scenes=view.scenes), Answered(text=view.reply)]


def see_again(chance: random.Random, shown: Scene, split: Split) -> Exchange:
    """Asked about a picture that is not shown again."""
    prompt, reply = ask_again(chance, split, shown)
    return [Said(text=prompt, is_blind=True), Answered(text=reply)]


def _look(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Several questions about what one camera sees."""
    made: Exchange = []
    for view in series(chance, split):
        said = Said(text=view.prompt, scenes=view.scenes, is_blind=not view.scenes)
        made += [said, Answered(text=view.reply)]
        past.shown = view.scenes[-1] if view.scenes else past.shown
    return made


def _reject(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Noise, words that it knows in a question of no use, and speech of other words."""
    answered = Answered(text=phrases.NOT_UNDERSTOOD)
    draw = chance.random()
    if draw < 0.3:
        return [Said(text="", sound="noise"), answered]
    if draw < 0.55:
        return [Said(text=drawn_prompt(chance, phrases.NEAR_DOMAIN, split)), answered]
    if draw < 0.65 and split == "train":
        tells, *_ = phrases.MEMORY["name"]
        name = chance.choice(phrases.OTHER_NAMES)
        text = drawn_prompt(chance, tells, split).format(name)
        return [Said(text=text, sound="foreign", is_typed=True), answered]
    if draw < 0.85:
        text, language = out_of_domain(chance, split), "en"
    else:
        language = chance.choice(list(phrases.FOREIGN))
        offered = phrases.FOREIGN[language]
        half = 2 * len(offered) // 3
        text = chance.choice(offered[:half] if split == "train" else offered[half:])
    return [Said(text=text, sound="foreign", language=language), answered]


def out_of_domain(chance: random.Random, split: Split) -> str:
    """An English sentence of no use."""
    if split == "train" and chance.random() < MORE_OUT_SHARE:
        return chance.choice(expand(chance.choice(phrases.MORE_OUT_OF_DOMAIN)))
    return chance.choice(sentences(phrases.OUT_OF_DOMAIN, split))


def _refuse(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Asked to act where there is no tool for it."""
    lacking = tuple(name for name in TOOL_NAMES if name not in past.offered)
    if not lacking:
        return _use_tool(chance, past, split)
    return _plain(asked_to_act(chance, split, lacking).prompt, phrases.NO_TOOLS)


def _use_tool(chance: random.Random, past: Past, split: Split) -> Exchange:
    if len(past.offered) < len(TOOL_NAMES) and chance.random() < LACKING_SHARE:
        return _refuse(chance, past, split)
    if split == "train" and chance.random() < BEYOND_SHARE:
        beyond = beyond_reach(chance, past.offered)
        if beyond is not None:
            return [Said(text=beyond, is_typed=True), Answered(text=phrases.NO_TOOLS)]
    act = asked_to_act(chance, split, past.offered)
    return [
        Said(text=act.prompt),
        Answered(text=act.call, is_call=True),
        Returned(text=act.result),
        Answered(text=act.reply),
    ]


def _plain(prompt: str, reply: str) -> Exchange:
    return [Said(text=prompt), Answered(text=reply)]


def _as_written(text: str) -> str:
    """A spoken sentence with its capitals and its full stop."""
    words = ["I" if word == "i" else word for word in text.split()]
    written = " ".join(words)
    return f"{written[0].upper()}{written[1:]}."


SKILLS: Mapping[str, Callable[[random.Random, Past, Split], Exchange]] = {
    "small_talk": _small_talk,
    "tell": _tell,
    "recall": _recall,
    "remember": _remember,
    "count": _count,
    "sum": _sum,
    "repeat": _repeat,
    "echo": _echo,
    "see": _see,
    "look": _look,
    "reject": _reject,
    "refuse": _refuse,
    "tools": _use_tool,
}
WEIGHTS: Mapping[str, float] = {
    "small_talk": 16,
    "tell": 12,
    "recall": 8,
    "remember": 4,
    "count": 6,
    "sum": 18,
    "repeat": 14,
    "echo": 0,
    "see": 22,
    "look": 4,
    "reject": 9,
    "refuse": 2,
    "tools": 24,
}
_VALUES: Mapping[str, tuple[str, ...]] = {
    "name": phrases.NAMES,
    "colour": phrases.COLOURS,
    "number": (
        *(2 * phrases.NUMBERS[1:]),
        *(spoken_number(number) for number in range(21, MAX_NUMBER + 1)),
    ),
}


def all_texts(num_conversations: int) -> Iterator[str]:
    """Texts that the tokenizer must know as whole words: prompts, a sample of replies, and
    instructions. The first word of each comes with and without a space before it. What tools give
    is read letter by letter: it is in anybody's words.
    """
    for seed in range(num_conversations):
        for split in ("train", "held_out"):
            for turn in conversation(seed, split).turns:
                is_foreign = isinstance(turn, Said) and turn.sound == "foreign"
                if not (is_foreign or isinstance(turn, Returned)):
                    yield turn.text
                    yield f" {turn.text}"
    for pattern in phrases.REPEATED:
        yield from expand(pattern)
    for patterns in (*(p for p, _ in phrases.SMALL_TALK.values()), *MORE_TALK.values()):
        for text in (sentence for pattern in patterns for sentence in expand(pattern)):
            yield text
            yield f" {text}"
    for _ in range(MIN_COUNT):
        yield from phrases.INSTRUCTIONS
