"""An exam on paper: conversations of held-out sentences, as sound and pictures, with the answers.

`omnid checkpoint exam DIR` writes it, `omnid bench understanding` holds it with a running daemon.
Every conversation is there four times: by voices of training and by a synthesizer that was never
used there, clean and in noise 10 dB below the speech. What is asked does not differ between them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from models.content import Rgb
from models.errors import CheckpointError
from models.recipe import acoustics, phrases, voices
from models.recipe.acting import TOOL_NAMES, TOOLS
from models.recipe.dialogues import (
    SKILLS,
    Answered,
    Exchange,
    Past,
    Returned,
    Said,
    recall,
    see_again,
    tell,
)
from models.recipe.pictures import draw, new_camera
from models.recipe.reply_voice import reply_speech
from models.recipe.requests import REQUESTS
from models.recipe.sound import write_wav
from models.recipe.speakers import spoken
from models.recipe.spectra import SAMPLE_RATE_HZ as REPLY_RATE_HZ
from models.recipe.voices import SAMPLE_RATE_HZ

NOISE_DB = 10.0
VOICES = ("seen", "unseen")
CONDITIONS = ("clean", "noisy")
EXAM_FILE = "exam.json"
REQUEST = "request"  # no skill: one of `requests.REQUESTS`
# Category -> the skills that it draws from, and how many conversations it has of each 60.
CATEGORIES: Mapping[str, tuple[tuple[str, ...], int]] = {
    "text": (("small_talk", "small_talk", "count", "sum", "repeat"), 20),
    "vision": (("see",), 14),
    "tool": (("tools",), 10),
    "memory": (("tell",), 8),
    "rejection": (("reject", REQUEST), 8),
}


def write_exam(folder: Path, *, seed: int, num_sixties: int) -> int:
    """Write `num_sixties` times 60 conversations, each in four renderings; returns their number.

    Raises:
        CheckpointError: the folder can not be made; a synthesizer is not installed, or fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"can not make the folder {folder}: {error.strerror}") from error
    items: list[dict[str, Any]] = []
    spoken_texts: dict[str, None] = {}
    for category, (skills, count) in CATEGORIES.items():
        for number in range(count * num_sixties):
            name = f"{category}-{number:03}"
            chance = random.Random(f"exam {seed} {name}")
            turns = drawn_conversation(category, chance.choice(skills), chance)
            spoken_texts |= {t.text: None for t in turns if _is_spoken(t)}
            asked = [turn.text for turn in turns if isinstance(turn, Said)]
            spoken_texts |= {text: None for said in asked for text in other_replies(said)}
            items += [
                {
                    "name": f"{name}-{group}-{condition}",
                    "category": category,
                    "voices": group,
                    "noise": condition,
                    "turns": _rendered(turns, folder, name, group, condition),
                }
                for group in VOICES
                for condition in CONDITIONS
            ]
    originals = _originals(folder, list(spoken_texts))
    exam = {"seed": seed, "tools": TOOLS, "items": items, "originals": originals}
    (folder / EXAM_FILE).write_text(json.dumps(exam, indent=1), encoding="utf-8")
    return len(items)


def drawn_conversation(category: str, skill: str, chance: random.Random) -> Exchange:
    """What is said in one conversation of a category, in held-out sentences."""
    if skill == REQUEST:
        asked = Said(text=chance.choice(REQUESTS), sound="foreign")
        return [asked, Answered(text=phrases.NOT_UNDERSTOOD)]
    past = Past(offered=TOOL_NAMES if category == "tool" else ())
    turns = SKILLS[skill](chance, past, "held_out")
    if category == "memory":
        (told,) = past.told
        if chance.random() < 0.5:
            other = chance.choice([what for what in phrases.MEMORY if what != told])
            turns = turns + tell(chance, past, "held_out", other)
        if chance.random() < 0.5:
            turns = turns + SKILLS["small_talk"](chance, past, "held_out")
        turns = turns + recall(chance, past, "held_out", chance.choice(list(past.told)))
    if past.shown is not None and chance.random() < 0.5:
        turns = turns + see_again(chance, past.shown, "held_out")
    return turns


def other_replies(said: str) -> list[str]:
    """Replies to this that are as right: somebody who asks for a taxi may also be told that."""
    return [phrases.NO_TOOLS] if said in REQUESTS else []


def _rendered(
    turns: Exchange, folder: Path, name: str, group: str, condition: str
) -> list[dict[str, Any]]:
    """A conversation's turns as files, by a voice of the group: `wav`, `pictures`, and what is to
    be answered to them, `reply` or `call` with its `result` and the `reply` to that; `others` are
    replies that are as right.
    """
    chance = random.Random(f"rendering {name}")  # the same sentence, whoever says it
    voice = chance.choice(voices.UNSEEN) if group == "unseen" else voices.random_voice(chance)
    is_clean = condition == "clean"
    conditions = acoustics.CLEAN if is_clean else acoustics.in_noise(NOISE_DB)
    name = f"{name}-{group}-{condition}"
    made: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        match turn:
            case Said():
                pcm = spoken(turn, voice, chance, conditions, folder / "said")
                write_wav(folder / f"{name}-{number}.wav", pcm, SAMPLE_RATE_HZ)
                made.append(
                    {
                        "wav": f"{name}-{number}.wav",
                        "said": turn.text,
                        "pictures": _pictures(turn, folder, f"{name}-{number}", chance),
                    }
                )
            case Returned():
                made[-1]["result"] = turn.text
            case Answered() if turn.is_call:
                inner = turn.text.removeprefix("<tool_call>").removesuffix("</tool_call>")
                made[-1]["call"] = json.loads(inner)
            case Answered():
                made[-1]["reply"] = turn.text
                made[-1]["others"] = other_replies(made[-1]["said"])
    return made


def _pictures(said: Said, folder: Path, name: str, chance: random.Random) -> list[str]:
    camera = new_camera(chance, said.scenes)
    written = []
    for moment, scene in enumerate(said.scenes):
        written.append(f"{name}-{moment}.png")
        _write_png(folder / written[-1], draw(scene, camera, moment=moment))
    return written


def _write_png(path: Path, rgb: Rgb) -> None:
    Image.fromarray(rgb).save(path)


def _originals(folder: Path, texts: list[str]) -> dict[str, str]:
    """The synthesizer's own recordings of the replies, for the recogniser to be measured with."""
    written = {}
    for number, text in enumerate(texts):
        written[text] = f"original-{number:03}.wav"
        write_wav(folder / written[text], reply_speech(text, folder).numpy(), REPLY_RATE_HZ)
    return written


def _is_spoken(turn: Any) -> bool:
    return isinstance(turn, Answered) and not turn.is_call
