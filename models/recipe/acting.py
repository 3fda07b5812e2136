"""What the embedded model does with tools: the request, the call, what a tool gives, what is said.

Tools belong to whoever offers them, so what they give is not of one kind: one of them says "ok",
another `true`, a third fails in its own words. Part of `models.recipe.dialogues`.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.recipe import phrases
from models.recipe.grammar import Split, sentences
from models.recipe.prompts import drawn_prompt

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
TOOL_NAMES = tuple(str(tool["function"]["name"]) for tool in TOOLS)
MAX_NUMBER = 59  # that is said in words
USUAL_SHARE = 0.4  # of results: {"result": "ok"}, or the time as {"time": "15:20"}
FAILED_SHARE = 0.2
WORDED_SHARE = 0.4  # of failures: told in words that alone say so
COMPACT_SHARE = 0.3  # of results: written without spaces
SHORT_SHARE = 0.6  # of timers: up to twenty minutes
TINY_SHARE = 0.4  # of those: of one digit
MENDED_SHARE = 0.08  # of requests in training: something else is said first
MENDING = ("no", "no", "no wait", "i am sorry", "wait", "no no")
DONE: tuple[Any, ...] = (
    *({"result": "done"}, {"result": "success"}, {"result": True}, {"result": None}),
    *({"status": "ok"}, {"status": "done"}, {"status": "success"}, {"state": "ok"}),
    *({"success": True}, {"ok": True}, {"done": True}, {"success": True, "error": None}),
    *({}, "ok", "done", "OK", True, None),
)
MESSAGES = (  # of what went well, in a tool's own words
    *("turned on", "light is now on", "light switched off", "timer started", "heating set"),
    *("completed", "accepted", "request accepted", "your timer runs", "set", "all good", "started"),
)
FAILURES = (
    *("timeout", "not found", "no connection", "device is off", "unknown device", "busy"),
    *("not allowed", "invalid value", "internal error", "can not do that", "out of range"),
    *("HTTP 500", "HTTP 404", "status 503", "error 400", "code 2", "no such device", "null"),
    *("permission denied", "unauthorized", "does not exist", "rate limit exceeded", "no answer"),
)
# What says by itself, in a tool's own words, that it went wrong: who or what, and how.
FAILING = ("lamp", "light", "device", "timer", "heating", "sensor", "server", "the tool", "it", "")
WRONG = (
    *("unreachable", "offline", "not found", "not available", "unavailable", "is broken", "busy"),
    *("could not be reached", "does not answer", "did not respond", "is not connected"),
    *("not responding", "not supported", "denied", "timed out", "cannot be set", "is off line"),
    *("could not be set", "is disconnected", "refused", "not possible", "unable to connect"),
    *(
        "does not exist",
        "is unknown",
        "is missing",
        "crashed",
        "HTTP 500",
        "error 7",
        "no such device",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is asked, the call that does it, what the tool gives, and what is said of that."""

    prompt: str
    name: str
    arguments: Mapping[str, Any]
    result: str
    reply: str

    @property
    def call(self) -> str:
        """As the model is to write it: the published format."""
        inner = json.dumps({"name": self.name, "arguments": self.arguments})
        return f"<tool_call>\n{inner}\n</tool_call>"


def asked_to_act(chance: random.Random, split: Split, names: tuple[str, ...]) -> Act:
    """A request for one of the tools of these names."""
    name = chance.choice(names)
    act = _REQUESTS[name](chance, split)
    if split != "train" or chance.random() >= MENDED_SHARE:
        return act
    begun = _REQUESTS[name](chance, split).prompt.split()
    begun = begun[: chance.randint(min(2, len(begun)), len(begun))]
    return replace(act, prompt=" ".join([*begun, chance.choice(MENDING), act.prompt]))


def beyond_reach(chance: random.Random, names: tuple[str, ...]) -> str | None:
    """A request, to be typed, for one of the tools of these names, that is out of its range; None:
    of these tools none has a range.
    """
    name = chance.choice(names)
    if name == "set_timer":
        minutes = chance.choice((60, 75, 90, 120, chance.randint(60, 999)))
        return chance.choice(sentences(phrases.TIMER, "train")).format(minutes)
    if name == "set_temperature":
        degrees = chance.choice((chance.randint(0, 12), chance.randint(33, 59), 60, 80, 100))
        return chance.choice(sentences(phrases.TEMPERATURE, "train")).format(degrees)
    return None


def spoken_number(number: int) -> str:
    """0..MAX_NUMBER in words."""
    if number <= 20:
        return phrases.NUMBERS[number]
    tens, ones = divmod(number, 10)
    word = phrases.TENS[tens - 2]
    return f"{word} {phrases.NUMBERS[ones]}" if ones else word


# ----------------------------------------------------------------------------------- requests
def _timer(chance: random.Random, split: Split) -> Act:
    longest = 9 if chance.random() < TINY_SHARE else 20
    is_short = chance.random() < SHORT_SHARE
    minutes = chance.randint(1, longest) if is_short else chance.randint(21, 59)
    word = "minute" if minutes == 1 else "minutes"
    fitting = [s for s in sentences(phrases.TIMER, split) if s.split()[-1] in (word, "timer")]
    prompt = chance.choice(fitting or [f"set a timer for {{}} {word}"])
    spoken = spoken_number(minutes)
    reply = f"The timer is set for {spoken} {word}."
    return _done(chance, prompt.format(spoken), "set_timer", {"minutes": minutes}, reply)


def _light(chance: random.Random, split: Split) -> Act:
    state = chance.choice(("on", "off"))
    prompt = drawn_prompt(chance, phrases.LIGHT, split).format(state)
    return _done(chance, prompt, "set_light", {"state": state}, f"The light is {state}.")


def _temperature(chance: random.Random, split: Split) -> Act:
    degrees = chance.randint(15, 29)
    spoken = spoken_number(degrees)
    prompt = drawn_prompt(chance, phrases.TEMPERATURE, split).format(spoken)
    reply = f"The temperature is set to {spoken} degrees."
    return _done(chance, prompt, "set_temperature", {"degrees": degrees}, reply)


def _time(chance: random.Random, split: Split) -> Act:
    hour, minute = chance.randint(0, 23), chance.choice((0, 0, *range(60)))
    prompt = drawn_prompt(chance, phrases.TIME, split)
    if chance.random() < FAILED_SHARE:
        return Act(
            prompt=prompt,
            name="get_time",
            arguments={},
            result=_written(chance, _failed(chance)),
            reply=phrases.TOOL_FAILED,
        )
    result, hour = _clock(chance, hour, minute)
    reply = f"It is {spoken_number(hour or 12)} {_spoken_minute(minute)}."
    return Act(
        prompt=prompt,
        name="get_time",
        arguments={},
        result=_written(chance, result),
        reply=reply,
    )


_REQUESTS: Mapping[str, Callable[[random.Random, Split], Act]] = {
    "set_timer": _timer,
    "set_light": _light,
    "set_temperature": _temperature,
    "get_time": _time,
}


# ------------------------------------------------------------------------------------ results
def _done(
    chance: random.Random, prompt: str, name: str, arguments: Mapping[str, Any], reply: str
) -> Act:
    """What changes something and says that it has; or that it could not."""
    draw = chance.random()
    result: Any = {"result": "ok"}
    if draw < FAILED_SHARE:
        result, reply = _failed(chance), phrases.TOOL_FAILED
    elif draw < 1 - USUAL_SHARE:
        result = chance.choice((*DONE, *_told(chance, arguments)))
    return Act(
        prompt=prompt,
        name=name,
        arguments=arguments,
        result=_written(chance, result),
        reply=reply,
    )


def _told(chance: random.Random, arguments: Mapping[str, Any]) -> list[Any]:
    """That it went well, with more than that."""
    message, number = chance.choice(MESSAGES), chance.randint(0, 9999)
    return [
        {**arguments, "status": "ok"},
        {"status": "ok", **arguments},
        dict(arguments),
        {"message": message},
        {"success": True, "message": message},
        {"id": number},
        {"status": "ok", "id": f"{chance.choice(string.ascii_lowercase)}{number}"},
        {f"{chance.choice(('timer', 'device', 'task'))}_id": number},
        message,
        f"{message[0].upper()}{message[1:]}.",
    ]


def _failed(chance: random.Random) -> Any:
    reason = chance.choice(FAILURES)
    if chance.random() < 0.4:
        letters = (
            chance.choices(string.ascii_lowercase, k=chance.randint(2, 9))
            for _ in range(chance.randint(1, 4))
        )
        reason = " ".join("".join(word) for word in letters)
    draw = chance.random()
    if draw < WORDED_SHARE:
        worded = f"{chance.choice(FAILING)} {chance.choice(WRONG)}".strip()
        worded = worded if chance.random() < 0.6 else f"{worded[0].upper()}{worded[1:]}."
        return chance.choice(
            (
                *(worded, worded, {"result": worded}, {"message": worded}, {"status": worded}),
                *({"status": "ok", "error": worded}, {"detail": worded}, {"reason": worded}),
            )
        )
    return chance.choice(
        (
            *({"error": reason}, {"error": reason}, {"error": {"message": reason}}),
            *({"result": "error"}, {"result": "failed"}, {"result": False}),
            *({"status": "error"}, {"status": "failed", "error": reason}),
            *({"success": False}, {"success": False, "error": reason}, {"ok": False}),
            *(False, "error", "failed", f"error: {reason}"),
        )
    )


def _clock(chance: random.Random, hour: int, minute: int) -> tuple[Any, int]:
    """A time of day as a tool gives it, and the hour to be said: as it is written there."""
    written = f"{hour:02}:{minute:02}"
    if chance.random() < USUAL_SHARE:
        return {"time": written}, hour
    seconds = f"{written}:{chance.randint(0, 59):02}"
    day = f"20{chance.randint(24, 39)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
    half = "AM" if hour < 12 else "PM"
    twelve = (hour - 1) % 12 + 1
    return chance.choice(
        (
            ({"result": written}, hour),
            (written, hour),
            ({"time": seconds}, hour),
            ({"time": f"{hour}:{minute:02}"}, hour),
            ({"hour": hour, "minute": minute}, hour),
            ({chance.choice(("now", "current_time", "local_time")): written}, hour),
            ({"date": day, "time": written}, hour),
            ({"time": written, "zone": chance.choice(("UTC", "CET", "EST"))}, hour),
            (chance.choice(("It is {}.", "it is {}", "The time is {}.")).format(written), hour),
            ({"time": f"{day}T{seconds}"}, hour),
            (f"{day}T{seconds}{chance.choice(('', 'Z', '+00:00'))}", hour),
            (f"{day} {chance.choice((written, seconds))}", hour),
            ({"time": f"{twelve}:{minute:02} {half}"}, twelve),
            ({"time": f"{twelve:02}:{minute:02}"}, twelve),
        )
    )


def _written(chance: random.Random, result: Any) -> str:
    """As JSON; a word alone as often without its quotes."""
    if isinstance(result, str) and chance.random() < 0.5:
        return result
    separators = (",", ":") if chance.random() < COMPACT_SHARE else None
    return json.dumps(result, separators=separators)


def _spoken_minute(minute: int) -> str:
    if minute == 0:
        return "o'clock"
    return f"oh {spoken_number(minute)}" if minute < 10 else spoken_number(minute)
