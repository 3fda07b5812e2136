"""`omnid checkpoint verify`: does a checkpoint, loaded here, hear, see and speak?

Asks three questions whose answers are known (typed, spoken, about a picture), greedily, and prints
a report that can be attached to a bug: answers, level and length of the speech, times. Random
checkpoints babble, some of them like noise: their words and that are shown and not judged, but that
they answer, end and are heard is. That speech is made slower than it lasts is a warning: it is so
on a slow machine, too.
"""

from __future__ import annotations

import hashlib
import io
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import torch

from models.commands.ask import Answer
from models.commands.sound import NOISE_FLATNESS, flatness, level_dbfs, sound_faults
from models.content import Audio, Image, Message, Part, Pcm16, ReplyOptions, Rgb, Text
from models.devices import describe_device, format_bytes
from models.engine import Engine, Placement
from models.errors import ModelError
from models.wav import read_wav
from models.weights import weight_files

OUTPUT_HZ = 24_000
MAX_TOKENS = 48
MAX_SPEECH_S = 60.0  # more than a second for each token
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
    flatness: float
    took_s: float
    first_pcm_ms: float | None
    faults: tuple[str, ...]

    @property
    def rtf(self) -> float:
        """Time to make the reply, over the length of its speech; 0 where there is none."""
        return self.took_s / self.audio_s if self.audio_s else 0.0

    @property
    def is_noise(self) -> bool:
        """Whether it sounds like noise, not like speech."""
        return self.flatness > NOISE_FLATNESS


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
    """Print the report; returns 0 where all is well that can be judged, else 1.

    Raises:
        CheckpointError, ResourceError: it can not be loaded.
    """
    started = time.perf_counter()
    engine = Engine.load(folder, placement)
    loaded_s = time.perf_counter() - started
    print(_head(folder, engine, placement, loaded_s))
    findings = []
    for number, question in enumerate(questions(), start=1):
        findings.append(_ask(engine, number, question))
        print(describe(findings[-1], is_babbling=engine.is_babbling))
    print()
    print(conclude(findings, is_babbling=engine.is_babbling, has_voice=bool(engine.voices)))
    return 1 if any(finding.faults for finding in findings) else 0


def judge(
    question: Question, text: str, pcm: Pcm16, *, was_cut: bool, has_voice: bool, is_babbling: bool
) -> tuple[str, ...]:
    """What is wrong with an answer."""
    faults = []
    if not text.strip():
        faults.append("an empty answer")
    if was_cut or len(pcm) > MAX_SPEECH_S * OUTPUT_HZ:
        faults.append("an answer without an end")
    if has_voice:
        faults += sound_faults(pcm)
    if is_babbling:
        return tuple(faults)
    words = {word.strip(".,!?:;*'\"()").lower() for word in text.replace("-", " ").split()}
    faults += [
        f"no {' or '.join(group)} in the answer"
        for group in question.expected
        if not words.intersection(group)
    ]
    if has_voice and flatness(pcm) > NOISE_FLATNESS:
        faults.append("it sounds like noise")
    return tuple(faults)


def describe(finding: Finding, *, is_babbling: bool) -> str:
    """Some lines for people."""
    verdict = "its words are not judged, it babbles" if is_babbling else "right"
    lines = [
        f"\n## {finding.question.name}",
        f"answer: {finding.text.strip()!r}",
        f"verdict: {'; '.join(finding.faults) or verdict}",
    ]
    if finding.audio_s:
        first = "-" if finding.first_pcm_ms is None else f"{finding.first_pcm_ms:.0f} ms"
        lines.append(
            f"speech: {finding.audio_s:.2f} s at {finding.level_dbfs:.1f} dBFS,"
            f" flatness {finding.flatness:.3f}{' (like noise)' if finding.is_noise else ''},"
            f" first samples after {first}, RTF {finding.rtf:.3f}"
        )
    return "\n".join(lines)


def conclude(findings: Sequence[Finding], *, is_babbling: bool, has_voice: bool) -> str:
    """What follows from all findings: a warning where there is one, and the last line."""
    slowest = max(finding.rtf for finding in findings)
    warning = f"Warning: speech is made slower than it lasts here (RTF up to {slowest:.2f}).\n"
    num_faulty = sum(bool(finding.faults) for finding in findings)
    if num_faulty:
        told = f"{num_faulty} of {len(findings)} answers have faults."
    elif is_babbling:
        noise = ", like noise," if any(finding.is_noise for finding in findings) else ""
        does = f"loads, answers and sounds{noise}" if has_voice else "loads and answers"
        told = f"Random, it babbles: it {does} but its words can not be judged."
    else:
        told = "It hears, sees and speaks." if has_voice else "It hears and sees; it has no voice."
    return (warning if slowest > 1 else "") + told


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
    while engine.has_work:
        engine.step()  # what is still told of a reply that failed is not the next question's
    if answer.end is not None:
        faults = judge(
            question,
            answer.text,
            answer.pcm,
            was_cut=answer.end.status == "incomplete",
            has_voice=bool(engine.voices),
            is_babbling=engine.is_babbling,
        )
    return Finding(
        question=question,
        text=answer.text,
        audio_s=len(answer.pcm) / OUTPUT_HZ,
        level_dbfs=level_dbfs(answer.pcm),
        flatness=flatness(answer.pcm),
        took_s=took_s,
        first_pcm_ms=answer.end.stages.first_pcm if answer.end is not None else None,
        faults=faults,
    )


def _head(folder: Path, engine: Engine, placement: Placement, loaded_s: float) -> str:
    """What a bug report must say of checkpoint, options and machine; the folder's name only, no
    path.
    """
    config = (folder / "config.json").read_bytes()
    sizes = [path.stat().st_size for path in weight_files(folder)]
    place = describe_device(torch.device(engine.device))
    devices = "".join(f", {stage} on {device}" for stage, device in placement.devices.items())
    return "\n".join(
        (
            f"# omnid {metadata.version('omnid')}: checkpoint {folder.name}",
            f"config.json sha256 {hashlib.sha256(config).hexdigest()[:16]},"
            f" {len(sizes)} weight files, {format_bytes(sum(sizes))}",
            f"{place.name}: {place.description}; {engine.dtype};"
            f" {format_bytes(place.free_bytes)} free after loading in {loaded_s:.1f} s",
            f"asked for: device {placement.device}, dtype {placement.dtype},"
            f" experts {placement.experts}{devices}",
            f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}"
            f" {platform.machine()}",
            f"voices: {', '.join(engine.voices) or 'none'}",
        )
    )
