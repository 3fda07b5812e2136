"""`omnid checkpoint verify`: does a checkpoint, loaded here, hear, see and speak?

Asks three questions whose answers are known (typed, spoken, about a picture), greedily, and prints
a report that can be attached to a bug: answers, level and length of the speech, times. Random
checkpoints babble: their answers are shown and not judged.
"""

from __future__ import annotations

import hashlib
import io
import platform
import time
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import torch

from models.commands.ask import Answer
from models.content import Audio, Image, Message, Part, Pcm16, ReplyOptions, Rgb, Text
from models.devices import describe_device, format_bytes
from models.engine import Engine, Placement
from models.errors import ModelError
from models.wav import read_wav
from models.weights import weight_files

OUTPUT_HZ = 24_000
LEVEL_DBFS = (-45.0, -6.0)  # of speech: below it is next to silence, above it is noise or clipping
MAX_TOKENS = 48
INSTRUCTIONS = "You are a voice assistant. Answer in one short sentence."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and words of which one of each group must be in the answer."""

    name: str
    parts: tuple[Part, ...]
    expected: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one question. `faults` is empty where all is well."""

    question: Question
    text: str
    audio_s: float
    level_dbfs: float
    took_s: float
    first_pcm_ms: float | None
    faults: tuple[str, ...]

    @property
    def rtf(self) -> float:
        """Time to make the reply, over the length of its speech."""
        return self.took_s / self.audio_s if self.audio_s else float("inf")


def questions() -> tuple[Question, ...]:
    """The three questions."""
    red: Rgb = np.full((224, 224, 3), (220, 20, 20), np.uint8)
    sound = resources.files("models.commands") / "one_to_five.wav"
    with resources.as_file(sound) as path:
        spoken = read_wav(path)
    return (
        Question(
            name="typed: the capital of France",
            parts=(Text(text="What is the capital of France?"),),
            expected=(("paris",),),
        ),
        Question(
            name="spoken: one to five",
            parts=(Audio(pcm=spoken), Text(text="Which numbers do you hear?")),
            expected=(("1", "one"), ("3", "three"), ("5", "five")),
        ),
        Question(
            name="seen: a red picture",
            parts=(Image(rgb=red), Text(text="Which colour is this picture?")),
            expected=(("red",),),
        ),
    )


def verify(folder: Path, placement: Placement) -> int:
    """Print the report; returns 0 where all is well or nothing can be judged, else 1.

    Raises:
        CheckpointError, ResourceError: it can not be loaded.
    """
    started = time.perf_counter()
    engine = Engine.load(folder, placement)
    loaded_s = time.perf_counter() - started
    print(_head(folder, engine, loaded_s))
    findings = []
    for number, question in enumerate(questions(), start=1):
        findings.append(_ask(engine, number, question))
        print(describe(findings[-1], is_judged=not engine.is_babbling))
    num_faults = sum(len(finding.faults) for finding in findings)
    if engine.is_babbling:
        print("\nThis checkpoint is random: it babbles. It loads, answers and sounds; whether its")
        print("words are right can not be judged.")
    elif not num_faults:
        print("\nIt hears, sees and speaks.")
    return 1 if num_faults and not engine.is_babbling else 0


def judge(question: Question, text: str, pcm: Pcm16, *, has_voice: bool) -> tuple[str, ...]:
    """What is wrong with an answer."""
    words = {word.strip(".,!?:;*'\"()").lower() for word in text.replace("-", " ").split()}
    faults = [
        f"no {' or '.join(group)} in the answer"
        for group in question.expected
        if not words.intersection(group)
    ]
    if has_voice:
        level = level_dbfs(pcm)
        low, high = LEVEL_DBFS
        if not low <= level <= high:
            faults.append(f"its level is {level:.1f} dBFS; speech lies between {low} and {high}")
    return tuple(faults)


def level_dbfs(pcm: Pcm16) -> float:
    """Root mean square of 16-bit samples below full scale; -inf of silence."""
    if not len(pcm):
        return float("-inf")
    power = float(np.mean(np.square(pcm.astype(np.float64) / 32768)))
    return 10 * float(np.log10(power)) if power else float("-inf")


def describe(finding: Finding, *, is_judged: bool) -> str:
    """Some lines for people."""
    verdict = "; ".join(finding.faults) or "right"
    lines = [
        f"\n## {finding.question.name}",
        f"answer: {finding.text.strip()!r}",
        f"verdict: {verdict if is_judged else 'not judged, it babbles'}",
    ]
    if finding.audio_s:
        first = "-" if finding.first_pcm_ms is None else f"{finding.first_pcm_ms:.0f} ms"
        lines.append(
            f"speech: {finding.audio_s:.2f} s at {finding.level_dbfs:.1f} dBFS,"
            f" first samples after {first}, RTF {finding.rtf:.3f}"
        )
    return "\n".join(lines)


def _ask(engine: Engine, number: int, question: Question) -> Finding:
    engine.open(number, instructions=INSTRUCTIONS, voice=None)
    engine.append_message(number, Message(role="user", parts=question.parts))
    started = time.perf_counter()
    engine.respond(number, number, ReplyOptions(greedy=True, max_tokens=MAX_TOKENS))
    faults: tuple[str, ...] = ()
    answer = Answer()
    try:
        answer = Answer.collect(engine, io.StringIO())
    except ModelError as error:  # a finding: the other questions are still worth asking
        faults = (f"it failed: {error}",)
    took_s = time.perf_counter() - started
    engine.close(number)
    if not faults:
        faults = judge(question, answer.text, answer.pcm, has_voice=bool(engine.voices))
    return Finding(
        question=question,
        text=answer.text,
        audio_s=len(answer.pcm) / OUTPUT_HZ,
        level_dbfs=level_dbfs(answer.pcm),
        took_s=took_s,
        first_pcm_ms=answer.end.stages.first_pcm if answer.end is not None else None,
        faults=faults,
    )


def _head(folder: Path, engine: Engine, loaded_s: float) -> str:
    """What a bug report must say of checkpoint and machine; the folder's name only, no path."""
    config = (folder / "config.json").read_bytes()
    sizes = [path.stat().st_size for path in weight_files(folder)]
    place = describe_device(torch.device(engine.device))
    return "\n".join(
        (
            f"# omnid {metadata.version('omnid')}: checkpoint {folder.name}",
            f"config.json sha256 {hashlib.sha256(config).hexdigest()[:16]},"
            f" {len(sizes)} weight files, {format_bytes(sum(sizes))}",
            f"{place.name}: {place.description}; {engine.dtype};"
            f" {format_bytes(place.free_bytes)} free after loading in {loaded_s:.1f} s",
            f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}"
            f" {platform.machine()}",
            f"voices: {', '.join(engine.voices) or 'none'}",
        )
    )
