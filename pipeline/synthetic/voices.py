"""Sentences spoken by the synthesizers of a Debian system, with the times of their words.

Programs are called: `flite`, `espeak-ng`, `pico2wave`, `RHVoice-test`, and `festival` for voices
that no judge was trained on. Sound is at 16 kHz, trimmed of the silence at both ends. Packages:
flite espeak-ng festival festvox-kdlpc16k festvox-us-slt-hts; to train, also libttspico-utils
rhvoice rhvoice-english (section non-free). `models.recipe.voices` does the same for the
checkpoint's training and may not be imported from here.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
import shutil
import signal
import subprocess
import tempfile
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.errors import PipelineError
from pipeline.messages import ENGINE_INPUT_HZ, Pcm

Program = Literal["flite", "espeak-ng", "pico2wave", "RHVoice-test", "festival"]
TIMEOUT_S = 60.0
PACES = (0.85, 0.95, 1.05, 1.2)  # few, so that what is short and often said is made once
FLOOR = 0.01  # of the peak: what is softer at the ends is no speech


class SynthesisError(PipelineError):
    """A synthesizer is not installed, or fails; the message names it."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One way to speak; `rate` and `pitch` are relative to the voice's own."""

    program: Program
    name: str
    rate: float = 1.0
    pitch: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A spoken text. `word_ends`: samples at which each of its words ends; () where not known."""

    text: str
    pcm: Pcm
    word_ends: tuple[int, ...] = ()


# who lends a voice to one pool lends none to the other: slt is a person, whichever program speaks
TRAINING = (
    *(("flite", name) for name in ("rms", "kal")),
    *(("RHVoice-test", name) for name in ("alan", "bdl", "clb")),
    *(("pico2wave", name) for name in ("en-US", "en-GB")),
    *(
        ("espeak-ng", f"{accent}{variant}")
        for accent in ("en-us", "en-gb")
        for variant in ("", "+m1", "+m3", "+f1", "+f2", "+Annie", "+Storm")
    ),
)
HELD_OUT = (
    ("flite", "awb"),
    ("festival", "ked_diphone"),
    ("festival", "cmu_us_slt_arctic_hts"),
    ("espeak-ng", "en-gb-scotland+m7"),
    ("espeak-ng", "en-gb-x-rp+f4"),
    ("espeak-ng", "en-us+Andrea"),
)


def draw(chance: random.Random, *, is_held_out: bool = False) -> Voice:
    """A voice by chance; each program is as likely as the others."""
    pool = HELD_OUT if is_held_out else TRAINING
    program = chance.choice(sorted({program for program, _ in pool}))
    name = chance.choice([name for made_by, name in pool if made_by == program])
    rate, pitch = chance.choice(PACES), chance.choice(PACES)
    return Voice(program=program, name=name, rate=rate, pitch=pitch)  # type: ignore[arg-type]


def missing_programs(*, is_held_out: bool = False) -> list[str]:
    """The programs of a pool that are not installed."""
    pool = HELD_OUT if is_held_out else TRAINING
    return sorted({program for program, _ in pool if shutil.which(program) is None})


@functools.lru_cache(maxsize=2048)
def say(text: str, voice: Voice) -> Clip:
    """Speak a text.

    Raises:
        SynthesisError: the program is not installed, or fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "made.wav"
        ends_s = _PROGRAMS[voice.program](text, voice, path)
        pcm = _read(path)
    loud = np.flatnonzero(np.abs(pcm) > FLOOR * max(1e-6, float(np.abs(pcm).max())))
    if not len(loud):
        raise SynthesisError(f"{voice.program} {voice.name} said nothing for {text!r}")
    first, behind = int(loud[0]), int(loud[-1]) + 1
    ends = tuple(min(behind, round(end * ENGINE_INPUT_HZ)) - first for end in ends_s)
    return Clip(text=text, pcm=pcm[first:behind], word_ends=ends)


# --------------------------------------------------------------------------------- programs
def _flite(text: str, voice: Voice, path: Path) -> list[float]:
    base = 95 if "kal" in voice.name else 120
    told = _call(
        [
            *("flite", "-voice", voice.name, "--setf", f"duration_stretch={1 / voice.rate:.3f}"),
            *("--setf", f"int_f0_target_mean={base * voice.pitch:.0f}"),
            *("-psdur", "-t", text, "-o", str(path)),
        ]
    )
    pairs = [pair.split(":") for pair in told.split()]
    ends = [float(end) for phone, end in pairs if phone != "pau"]
    counts = [_num_phones(word, voice.name) for word in text.split()]
    if sum(counts) != len(ends):  # a word sounds another way in its sentence
        return []
    return [ends[count - 1] for count in itertools.accumulate(counts)]


@functools.cache
def _num_phones(word: str, voice: str) -> int:
    told = _call(["flite", "-voice", voice, "-ps", "-t", re.sub(r"[^\w']", "", word), "-o", "none"])
    return sum(phone != "pau" for phone in told.split())


def _espeak(text: str, voice: Voice, path: Path) -> list[float]:
    speed, pitch = f"{165 * voice.rate:.0f}", f"{min(99, max(0, 50 * voice.pitch)):.0f}"
    _call(["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(path), text])
    return []


def _pico(text: str, voice: Voice, path: Path) -> list[float]:
    marked = f'<pitch level="{100 * voice.pitch:.0f}"><speed level="{100 * voice.rate:.0f}">{text}'
    _call(["pico2wave", "-l", voice.name, "-w", str(path), f"{marked}</speed></pitch>"])
    return []


def _rhvoice(text: str, voice: Voice, path: Path) -> list[float]:
    rate, pitch = f"{100 * voice.rate:.0f}", f"{100 * voice.pitch:.0f}"
    _call(["RHVoice-test", "-p", voice.name, "-r", rate, "-t", pitch, "-o", str(path)], text)
    return []


def _festival(text: str, voice: Voice, path: Path) -> list[float]:
    quoted = text.replace('"', "")
    program = f"""(voice_{voice.name})
(Parameter.set 'Duration_Stretch {1 / voice.rate:.3f})
(set! said (utt.synth (Utterance Text "{quoted}")))
(mapcar (lambda (w) (format t "%s %f\\n" (item.name w) (item.feat w "word_end")))
        (utt.relation.items said 'Word))
(utt.save.wave said "{path}" 'riff)
"""
    script = path.with_suffix(".scm")
    script.write_text(program, encoding="utf-8")
    told = _call(["festival", "-b", str(script)])
    ends = [float(line.split()[1]) for line in told.splitlines() if len(line.split()) == 2]
    return ends if len(ends) == len(text.split()) else []


def _call(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, check=True, timeout=TIMEOUT_S
        )
    except FileNotFoundError:
        raise SynthesisError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        if error.returncode == -signal.SIGINT:  # Ctrl-C reaches the child, too
            raise KeyboardInterrupt from None
        raise SynthesisError(f"{' '.join(command)}: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(f"{' '.join(command)}: {error}") from error
    return done.stdout.decode("utf-8", "replace")


def _read(path: Path) -> Pcm:
    """The file at 16 kHz, by its spectrum."""
    with wave.open(str(path)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        rate_hz = file.getframerate()
    pcm = raw.astype(np.float32) / np.float32(32768)
    length = round(len(pcm) * ENGINE_INPUT_HZ / rate_hz)
    spectrum = np.fft.rfft(pcm)
    kept = np.zeros(length // 2 + 1, spectrum.dtype)
    count = min(len(kept), len(spectrum))
    kept[:count] = spectrum[:count]
    return np.asarray(np.fft.irfft(kept, length) * (length / max(1, len(pcm))), np.float32)


_PROGRAMS: Mapping[Program, Callable[[str, Voice, Path], list[float]]] = {
    "flite": _flite,
    "espeak-ng": _espeak,
    "pico2wave": _pico,
    "RHVoice-test": _rhvoice,
    "festival": _festival,
}
