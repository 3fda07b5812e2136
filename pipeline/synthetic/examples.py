"""Labelled sounds for the judges of `pipeline.listening`, made by chance.

A pause inside a turn is made in three ways: the sentence is cut between two words of its own
melody, spoken up to a comma, or left at a filled pause. Nothing here is recorded from people: what
a judge learns from it must be measured on them before it is believed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from pipeline.listening.interruption import KINDS, Kind
from pipeline.messages import ENGINE_INPUT_HZ, Pcm
from pipeline.synthetic import sentences, sounds, voices
from pipeline.synthetic.voices import Voice

FADE_SAMPLES = ENGINE_INPUT_HZ * 3 // 100
SAMPLES_PER_MS = ENGINE_INPUT_HZ // 1000


def complete(chance: random.Random, voice: Voice, *, is_held_out: bool = False) -> Pcm:
    """A whole turn; now and then two sentences, or one behind a filled pause."""
    draw = chance.random()
    said = voices.say(sentences.draw(chance, is_held_out=is_held_out), voice).pcm
    if draw < 0.15:
        before = voices.say(sentences.draw(chance, is_held_out=is_held_out), voice).pcm
        return np.concatenate([before, silence(chance.uniform(150, 500)), said])
    if draw < 0.25:
        filler = voices.say(chance.choice(sentences.FILLERS), voice).pcm
        return np.concatenate([filler, silence(chance.uniform(60, 300)), said])
    return said


def halves(chance: random.Random, voice: Voice, *, is_held_out: bool = False) -> tuple[Pcm, Pcm]:
    """A turn in two parts: up to a pause inside it, and what follows."""
    text = sentences.draw(chance, is_held_out=is_held_out)
    words = text.split()
    while len(words) < 4:
        text = sentences.draw(chance, is_held_out=is_held_out)
        words = text.split()
    cut = chance.randint(2, len(words) - 2)
    said = voices.say(text, voice)
    draw = chance.random()
    rest = voices.say(" ".join(words[cut:]), voice).pcm
    if draw < 0.4 and said.word_ends:
        end = said.word_ends[cut - 1]
        return faded(said.pcm[:end]), said.pcm[end:]
    if draw < 0.7:
        return voices.say(" ".join(words[:cut]).rstrip(",.?") + ",", voice).pcm, rest
    filler = chance.choice(("um", "uh", "er"))
    first = voices.say(" ".join(words[:cut]).rstrip(",.?") + ",", voice).pcm
    filled = voices.say(filler, Voice(program=voice.program, name=voice.name, rate=0.8)).pcm
    return np.concatenate([first, silence(chance.uniform(0, 150)), filled]), rest


def interjection(kind: Kind, chance: random.Random, voice: Voice, *, usual_db: float) -> Pcm:
    """A sound that a user makes, or that is made beside him, while a reply is heard."""
    match kind:
        case "interruption":
            said = voices.say(chance.choice(sentences.INTERRUPTIONS), voice).pcm
            return sounds.at_level(said, usual_db + chance.gauss(1.0, 2.0))
        case "backchannel":
            said = voices.say(chance.choice(sentences.BACKCHANNELS), voice).pcm
            return sounds.at_level(said, usual_db - abs(chance.gauss(3.0, 2.5)))
        case "noise":
            made = sounds.cough(chance) if chance.random() < 0.7 else sounds.clatter(chance)
            return sounds.at_level(made, usual_db + chance.gauss(-2.0, 5.0))
        case "side_speech":
            said = voices.say(chance.choice(sentences.SIDE_SPEECH), voice).pcm
            far = sounds.in_room(said, chance, wetness=chance.uniform(0.4, 1.5))
            return sounds.at_level(far, usual_db - chance.uniform(8.0, 22.0))


def in_noise(pcm: Pcm, chance: random.Random, *, level_db: float) -> Pcm:
    """Over a noise of the room between 15 and 45 dB softer than `level_db`."""
    floor_db = level_db - chance.uniform(15, 45)
    room = sounds.noise(len(pcm), chance) * 10 ** (floor_db / 20)
    return np.clip(pcm + room, -1, 1).astype(np.float32)


def turn_example(chance: random.Random, *, is_held_out: bool) -> tuple[Pcm, int]:
    """(a turn with the silence behind it, 1 where it is complete)."""
    voice = voices.draw(chance, is_held_out=is_held_out)
    is_complete = chance.random() < 0.5
    make: Callable[..., Pcm] = complete if is_complete else _first_half
    said = make(chance, voice, is_held_out=is_held_out)
    level_db = chance.uniform(-38, -16)
    said = sounds.at_level(said, level_db)
    if chance.random() < 0.3:
        said = sounds.in_room(said, chance, wetness=chance.uniform(0.1, 0.5))[: len(said) + 800]
    padded = np.concatenate([silence(250), said, silence(chance.uniform(110, 190))])
    return in_noise(padded, chance, level_db=level_db), int(is_complete)


def sound_example(chance: random.Random, *, is_held_out: bool) -> tuple[Pcm, float, int]:
    """(a sound that began 160 to 520 ms ago, the user's usual level, its index in `KINDS`)."""
    voice = voices.draw(chance, is_held_out=is_held_out)
    label = chance.randrange(len(KINDS))
    usual_db = chance.uniform(-36, -16)
    made = interjection(KINDS[label], chance, voice, usual_db=usual_db)
    before = chance.uniform(80, 200)
    told = round((before + chance.uniform(160, 520)) * SAMPLES_PER_MS)
    whole = np.concatenate([silence(before), made, silence(600)])[:told]
    told_db = usual_db + chance.gauss(0.0, 1.5)
    return in_noise(whole, chance, level_db=usual_db), told_db, label


def silence(length_ms: float) -> Pcm:
    """So many milliseconds of zeros."""
    return np.zeros(round(length_ms * SAMPLES_PER_MS), np.float32)


def faded(pcm: Pcm) -> Pcm:
    """With a soft end."""
    count = min(FADE_SAMPLES, len(pcm))
    ramp = np.ones(len(pcm), np.float32)
    ramp[len(pcm) - count :] = np.linspace(1, 0, count, dtype=np.float32)
    return pcm * ramp


def _first_half(chance: random.Random, voice: Voice, *, is_held_out: bool) -> Pcm:
    return halves(chance, voice, is_held_out=is_held_out)[0]
