"""Sentences spoken by the synthesizers of a Debian system, kept as files.

Programs are called: `flite`, `espeak-ng`, `pico2wave`, `RHVoice-test`, and festival's `text2wave`.
Voices of the first four are for training; festival's are the unseen ones, so that a test asks a
synthesizer that was never trained on. Sound is what the programs made, at 16 kHz; rooms, noise and
telephones are `models.recipe.acoustics`. Packages: flite espeak-ng; libttspico-utils rhvoice
rhvoice-english (section non-free); festival festvox-kdlpc16k festvox-us-slt-hts.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from models.content import Pcm
from models.errors import CheckpointError
from models.recipe.sound import read_wav, resampled, write_wav

Program = Literal["flite", "espeak-ng", "pico2wave", "RHVoice-test", "text2wave"]
SAMPLE_RATE_HZ = 16_000
TIMEOUT_S = 60.0
RHVOICE_SHARE = 0.4
PICO_SHARE = 0.33  # of the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One way to speak.

    Attributes:
        name: as the program calls it.
        rate: speed, 1 is the voice's own. pitch: the same of its pitch (not of text2wave).
    """

    program: Program
    name: str
    rate: float = 1.0
    pitch: float = 1.0


REPLY_VOICE = Voice(program="flite", name="rms")
_FLITE = ("rms", "slt", "awb", "kal", "kal16")
_ESPEAK = tuple(
    f"{accent}{variant}"
    for accent in ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
    for variant in ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+Annie", "+Andrea", "+Storm")
)
_PICO = ("en-US", "en-GB")
_RHVOICE = ("alan", "bdl", "clb", "slt")  # without those whose licence allows no derived works
UNSEEN = tuple(
    Voice(program="text2wave", name=name, rate=rate)
    for name in ("ked_diphone", "cmu_us_slt_arctic_hts")
    for rate in (0.9, 1.0, 1.1)
)


def random_voice(chance: random.Random) -> Voice:
    """A voice for training; of RHVoice and pico2wave where they are installed."""
    rate = chance.uniform(0.8, 1.25)
    if chance.random() < RHVOICE_SHARE and shutil.which("RHVoice-test") is not None:
        pitch = chance.uniform(0.75, 1.35)
        return Voice(program="RHVoice-test", name=chance.choice(_RHVOICE), rate=rate, pitch=pitch)
    draw = chance.random()
    if draw < PICO_SHARE and shutil.which("pico2wave") is not None:
        pitch = chance.uniform(0.7, 1.4)
        return Voice(program="pico2wave", name=chance.choice(_PICO), rate=rate, pitch=pitch)
    if draw < 0.7:
        pitch = chance.uniform(0.85, 1.2)
        return Voice(program="flite", name=chance.choice(_FLITE), rate=rate, pitch=pitch)
    pitch = chance.uniform(0.7, 1.4)
    return Voice(program="espeak-ng", name=chance.choice(_ESPEAK), rate=rate, pitch=pitch)


def foreign_voice(language: str) -> Voice:
    """espeak-ng speaks most languages."""
    return Voice(program="espeak-ng", name="en-us" if language == "en" else language)


def missing_programs(programs: tuple[Program, ...] = ("flite", "espeak-ng")) -> list[str]:
    """Those that are not installed."""
    return [program for program in programs if shutil.which(program) is None]


def say(text: str, voice: Voice, folder: Path) -> Pcm:
    """Speech at 16 kHz, from `folder` where it was made before.

    Raises:
        CheckpointError: the program is not installed, or fails.
    """
    key = hashlib.sha256(f"{voice}\n{text}".encode()).hexdigest()[:24]
    path = folder / key[:2] / f"{key}.wav"
    if path.exists():
        return read_wav(path)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made.wav"
        _PROGRAMS[voice.program](text, voice, made)
        pcm, rate_hz = read_wav(made)
        pcm = resampled(pcm, rate_hz, SAMPLE_RATE_HZ)
        unfinished = path.with_suffix(f".{key}-{id(pcm)}")
        write_wav(unfinished, pcm, SAMPLE_RATE_HZ)
        unfinished.rename(path)
    return np.asarray(pcm, dtype=np.float32)


def _flite(text: str, voice: Voice, path: Path) -> None:
    settings = [f"duration_stretch={1 / voice.rate:.3f}"]
    if voice.pitch != 1.0:  # kal's own mean is 95 Hz, the others' about 120
        settings.append(
            f"int_f0_target_mean={(95 if 'kal' in voice.name else 120) * voice.pitch:.0f}"
        )
    flags = [word for setting in settings for word in ("--setf", setting)]
    _call(["flite", "-voice", voice.name, *flags, "-t", text, "-o", str(path)])


def _espeak(text: str, voice: Voice, path: Path) -> None:
    speed, pitch = f"{160 * voice.rate:.0f}", f"{min(99, max(0, 50 * voice.pitch)):.0f}"
    _call(["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(path), text])


def _pico(text: str, voice: Voice, path: Path) -> None:
    marked = f'<pitch level="{100 * voice.pitch:.0f}"><speed level="{100 * voice.rate:.0f}">{text}'
    _call(["pico2wave", "-l", voice.name, "-w", str(path), f"{marked}</speed></pitch>"])


def _rhvoice(text: str, voice: Voice, path: Path) -> None:
    rate, pitch = f"{100 * voice.rate:.0f}", f"{100 * voice.pitch:.0f}"
    _call(["RHVoice-test", "-p", voice.name, "-r", rate, "-t", pitch, "-o", str(path)], text)


def _festival(text: str, voice: Voice, path: Path) -> None:
    program = f"(begin (voice_{voice.name}) (Parameter.set 'Duration_Stretch {1 / voice.rate:.3f}))"
    _call(["text2wave", "-eval", program, "-o", str(path)], text)


def _call(command: list[str], text: str = "", *, num_attempts: int = 2) -> None:
    """Run a synthesizer. It may have been the machine that slept, so it has another attempt."""
    try:
        subprocess.run(
            command, input=text.encode(), capture_output=True, check=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        if num_attempts == 1:
            raise CheckpointError(f"{' '.join(command)}: {error}") from error
        _call(command, text, num_attempts=num_attempts - 1)
    except FileNotFoundError:
        raise CheckpointError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise CheckpointError(f"{' '.join(command)}: {error}") from error


_PROGRAMS: Mapping[Program, Callable[[str, Voice, Path], None]] = {
    "flite": _flite,
    "espeak-ng": _espeak,
    "pico2wave": _pico,
    "RHVoice-test": _rhvoice,
    "text2wave": _festival,
}
