"""The conversations that the embedded model learns, drawn from a seed.

A conversation is a list of messages as the model sees them: what the user says (to be synthesised,
or typed), what his camera sees (to be drawn), what the assistant answers, the tools it calls and
their results. Skills are mixed within one conversation, because memory means to answer after other
talk. Prompts of the held-out split are sentences that training never has. Makes no sound and no
picture.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from models.recipe import phrases
from models.recipe.grammar import Split, expand, sentences
from models.recipe.more_talk import MORE_TALK
from models.recipe.pictures import Scene
from models.recipe.prompts import drawn_prompt, more_sentences
from models.recipe.seeing import seeing
from models.recipe.series import series
from models.recipe.tokenizer import MIN_COUNT

Sound = Literal["speech", "foreign", "noise"]
RECALL_OFTEN = 6
TOOLS_OFTEN = 4
MORE_SHARE = 0.4  # of small talk in training
TOOLS: tuple[Mapping[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": properties, "required": [*properties]},
        },
    }
    for name, description, properties in (
        ("set_timer", "Start a timer.", {"minutes": {"type": "integer"}}),
        ("set_light", "Turn the light on or off.", {"state": {"enum": ["on", "off"]}}),
        ("set_temperature", "Set the heating.", {"degrees": {"type": "integer"}}),
        ("get_time", "The time of day.", {}),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A user's turn.

    Attributes:
        text: the words; of noise, none.
        sound: what is heard where it is spoken. language: of a foreign sentence.
        scenes: what the camera sees while it is said, one after the other; none: nothing that
            matters. is_blind: there must be no camera.
    """

    text: str
    sound: Sound = "speech"
    language: str = "en"
    scenes: tuple[Scene, ...] = ()
    is_blind: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An assistant's turn: `text` as the model writes it; is_call: it is a tool call."""

    text: str
    is_call: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a tool gave, as JSON."""

    text: str


Turn = Said | Answered | Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns in order; every `Said` or `Returned` is followed by an `Answered`.

    `skills` names what each exchange trains; has_tools: the system part lists TOOLS.
    """

    turns: tuple[Turn, ...]
    skills: tuple[str, ...]
    has_tools: bool = False


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
    """What has been told so far in a conversation."""

    told: dict[str, str] = field(default_factory=dict)
    has_tools: bool = False


Exchange = list[Turn]


def conversation(seed: int, split: Split, drill: Drill | None = None) -> Conversation:
    """The conversation of this seed, one to four exchanges, or those of a drill."""
    chance = random.Random(f"{split} {seed}")
    past = Past(has_tools=chance.random() < 0.28)
    num = chance.choice((1, 1, 1, 1, 2, 2, 2, 3, 4))
    if drill is not None:
        past.has_tools, num = drill.has_tools, drill.num
    turns: list[Turn] = []
    skills: list[str] = []
    for _ in range(num):
        skill = _choose_skill(chance, past, WEIGHTS if drill is None else drill.weights)
        turns += SKILLS[skill](chance, past, split)
        skills.append(skill)
    return Conversation(turns=tuple(turns), skills=tuple(skills), has_tools=past.has_tools)


def spoken_replies(split: Split, seeds: range) -> list[str]:
    """Every different text that is spoken in these conversations, in order of appearance."""
    found: dict[str, None] = {}
    for seed in seeds:
        for turn in conversation(seed, split).turns:
            if isinstance(turn, Answered) and not turn.is_call:
                found.setdefault(turn.text)
    return list(found)


def _choose_skill(chance: random.Random, past: Past, usual: Mapping[str, float]) -> str:
    names = [name for name in SKILLS if name != "tools" or past.has_tools]
    weights = dict(usual)
    if past.told:  # ask while there is something to remember
        weights["recall"] *= RECALL_OFTEN
    if past.has_tools:  # their description is long: use them while they are there
        weights["tools"] *= TOOLS_OFTEN
    return chance.choices(names, [weights[name] for name in names])[0]


# ------------------------------------------------------------------------------------- skills
def _small_talk(chance: random.Random, past: Past, split: Split) -> Exchange:
    name = chance.choice(list(phrases.SMALL_TALK))
    patterns, reply = phrases.SMALL_TALK[name]
    if split == "train" and chance.random() < MORE_SHARE:
        return _plain(chance.choice(more_sentences(name)), reply)
    return _plain(drawn_prompt(chance, patterns, split), reply)


def _tell(chance: random.Random, past: Past, split: Split) -> Exchange:
    what = chance.choice(list(phrases.MEMORY))
    tells, reply, *_ = phrases.MEMORY[what]
    value = chance.choice(_VALUES[what])
    past.told[what] = value
    prompt = drawn_prompt(chance, tells, split).format(value)
    return _plain(prompt, reply.format(value))


def _recall(chance: random.Random, past: Past, split: Split) -> Exchange:
    is_told = bool(past.told) and chance.random() < 0.8
    what = chance.choice(list(past.told) if is_told else list(phrases.MEMORY))
    _, _, asks, answer, unknown = phrases.MEMORY[what]
    told = past.told.get(what)
    return _plain(drawn_prompt(chance, asks, split), answer.format(told) if told else unknown)


def _count(chance: random.Random, past: Past, split: Split) -> Exchange:
    stop = chance.randint(2, 12)
    counted = ", ".join(phrases.NUMBERS[1 : stop + 1]).capitalize() + "."
    return _plain(drawn_prompt(chance, phrases.COUNT, split).format(phrases.NUMBERS[stop]), counted)


def _sum(chance: random.Random, past: Past, split: Split) -> Exchange:
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
    view = seeing(chance, split)
    if chance.random() < 0.08:
        said = Said(text=view.prompt, is_blind=True)
        return [said, Answered(text=phrases.NO_CAMERA)]
    said = Said(text=view.prompt, scenes=view.scenes)
    return [said, Answered(text=view.reply)]


def _look(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Several questions about what one camera sees."""
    made: Exchange = []
    for view in series(chance, split):
        said = Said(text=view.prompt, scenes=view.scenes, is_blind=not view.scenes)
        made += [said, Answered(text=view.reply)]
    return made


def _reject(chance: random.Random, past: Past, split: Split) -> Exchange:
    if chance.random() < 0.4:
        return [Said(text="", sound="noise"), Answered(text=phrases.NOT_UNDERSTOOD)]
    if chance.random() < 0.6:
        text, language = chance.choice(sentences(phrases.OUT_OF_DOMAIN, split)), "en"
    else:
        language = chance.choice(list(phrases.FOREIGN))
        offered = phrases.FOREIGN[language]
        half = 2 * len(offered) // 3
        text = chance.choice(offered[:half] if split == "train" else offered[half:])
    said = Said(text=text, sound="foreign", language=language)
    return [said, Answered(text=phrases.NOT_UNDERSTOOD)]


def _refuse(chance: random.Random, past: Past, split: Split) -> Exchange:
    """Asked to act where there are no tools."""
    if past.has_tools:
        return _use_tool(chance, past, split)
    prompt, *_ = _tool_request(chance, split)
    return _plain(prompt, phrases.NO_TOOLS)


def _use_tool(chance: random.Random, past: Past, split: Split) -> Exchange:
    prompt, name, arguments, result, reply = _tool_request(chance, split)
    call = json.dumps({"name": name, "arguments": arguments})
    return [
        Said(text=prompt),
        Answered(text=f"<tool_call>\n{call}\n</tool_call>", is_call=True),
        Returned(text=json.dumps(result)),
        Answered(text=reply),
    ]


ToolUse = tuple[str, str, dict[str, Any], dict[str, Any], str]


def _tool_request(chance: random.Random, split: Split) -> ToolUse:
    """Prompt, name, arguments, result, and what is said of the result."""
    done = {"result": "ok"}
    match chance.choice(("timer", "light", "temperature", "time")):
        case "timer":
            minutes = chance.randint(1, 20)
            word = "minute" if minutes == 1 else "minutes"
            fitting = [
                s for s in sentences(phrases.TIMER, split) if s.split()[-1] in (word, "timer")
            ]
            prompt = chance.choice(fitting or [f"set a timer for {{}} {word}"])
            spoken = phrases.NUMBERS[minutes]
            reply = f"The timer is set for {spoken} {word}."
            return prompt.format(spoken), "set_timer", {"minutes": minutes}, done, reply
        case "light":
            state = chance.choice(("on", "off"))
            prompt = drawn_prompt(chance, phrases.LIGHT, split).format(state)
            return prompt, "set_light", {"state": state}, done, f"The light is {state}."
        case "temperature":
            degrees = chance.randint(15, 29)
            spoken = spoken_number(degrees)
            prompt = drawn_prompt(chance, phrases.TEMPERATURE, split).format(spoken)
            reply = f"The temperature is set to {spoken} degrees."
            return prompt, "set_temperature", {"degrees": degrees}, done, reply
        case _:
            hour, minute = chance.randint(1, 12), chance.choice(range(0, 60, 5))
            prompt = drawn_prompt(chance, phrases.TIME, split)
            reply = f"It is {spoken_number(hour)} {_spoken_minute(minute)}."
            return prompt, "get_time", {}, {"time": f"{hour:02}:{minute:02}"}, reply


def _spoken_minute(minute: int) -> str:
    if minute == 0:
        return "o'clock"
    return f"oh {spoken_number(minute)}" if minute < 10 else spoken_number(minute)


def spoken_number(number: int) -> str:
    """0..59 in words."""
    if number <= 20:
        return phrases.NUMBERS[number]
    tens, ones = divmod(number, 10)
    word = phrases.TENS[tens - 2]
    return f"{word} {phrases.NUMBERS[ones]}" if ones else word


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
    "count": 6,
    "sum": 18,
    "repeat": 14,
    "echo": 0,
    "see": 22,
    "look": 0,
    "reject": 7,
    "refuse": 2,
    "tools": 24,
}
_VALUES: Mapping[str, tuple[str, ...]] = {
    "name": phrases.NAMES,
    "colour": phrases.COLOURS,
    "number": phrases.NUMBERS[1:],
}


def all_texts(num_conversations: int) -> Iterator[str]:
    """Texts that the tokenizer must know as whole words: prompts, a sample of replies, and
    instructions. The first word of each comes with and without a space before it.
    """
    for seed in range(num_conversations):
        for split in ("train", "held_out"):
            for turn in conversation(seed, split).turns:
                if not (isinstance(turn, Said) and turn.sound == "foreign"):
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
