"""Labelled sounds for the judges of `pipeline.listening`, made by chance.

A pause inside a turn is made in four ways: the sentence is cut inside its own melody, spoken up to
a comma, left at a word that wants another, or at a filled pause. Nothing here is recorded from
people: what a judge learns from it must be measured on them before it is believed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.listening.interruption import KINDS, Kind
from pipeline.messages import ENGINE_INPUT_HZ, Pcm
from pipeline.synthetic import sentences, sounds, voices
from pipeline.synthetic.sentences import Pool
from pipeline.synthetic.voices import Clip, Voice

FADE_SAMPLES = ENGINE_INPUT_HZ * 3 // 100
SAMPLES_PER_MS = ENGINE_INPUT_HZ // 1000
MIN_WORDS = 4  # of a sentence that is cut
PAUSE_MS = 250, 1_100
CUT_FRAME = ENGINE_INPUT_HZ // 50
CUT_REACH_FRAMES = 8  # how far from the wanted place a cut may lie
WARP = 0.87, 1.15  # of voices while learning

Labelled = tuple[Pcm, int]


def complete(chance: random.Random, voice: Voice, *, pool: Pool = sentences.TRAINING) -> Pcm:
    """A whole turn; now and then two sentences, or one behind a filled pause."""
    draw = chance.random()
    said = voices.say(sentences.draw(chance, pool), voice).pcm
    if draw < 0.15:
        before = voices.say(sentences.draw(chance, pool), voice).pcm
        return np.concatenate([before, silence(chance.uniform(150, 500)), said])
    if draw < 0.25:
        filler = voices.say(chance.choice(sentences.FILLERS), voice).pcm
        return np.concatenate([filler, silence(chance.uniform(60, 300)), said])
    return said


def halves(
    chance: random.Random, voice: Voice, *, pool: Pool = sentences.TRAINING
) -> tuple[Pcm, Pcm]:
    """A turn in two parts: up to a pause inside it, and what follows."""
    return parted(chance, voice, _long_text(chance, pool))


def ends(chance: random.Random, voice: Voice, text: str) -> list[Labelled]:
    """A turn up to its end, and up to the pause in it that half of the longer ones have: (sound, 1
    where it is complete).
    """
    if chance.random() >= 0.5 or len(text.split()) < MIN_WORDS:
        return [(voices.say(text, voice).pcm, 1)]
    first, rest = parted(chance, voice, text)
    pause = silence(chance.uniform(*PAUSE_MS))
    return [(first, 0), (np.concatenate([first, pause, rest]), 1)]


def interjection(
    kind: Kind,
    chance: random.Random,
    voice: Voice,
    *,
    usual_db: float,
    pool: Pool = sentences.TRAINING,
    warp: float = 1.0,
) -> Pcm:
    """A sound that a user makes, or that is made beside him, while a reply is heard. `warp`: see
    `sounds.warped`.
    """
    match kind:
        case "interruption":
            said = voices.say(chance.choice(pool.interruptions), voice).pcm
            level_db = usual_db + chance.gauss(1.0, 2.0)
        case "backchannel":
            said = voices.say(chance.choice(pool.backchannels), voice).pcm
            level_db = usual_db - abs(chance.gauss(3.0, 2.5))
        case "noise":
            said = sounds.cough(chance) if chance.random() < 0.7 else sounds.clatter(chance)
            level_db = usual_db + chance.gauss(-2.0, 5.0)
        case "side_speech":
            said = voices.say(chance.choice(pool.side_speech), voice).pcm
            said = sounds.in_room(said, chance, wetness=chance.uniform(0.4, 1.5))
            level_db = usual_db - chance.uniform(8.0, 22.0)
    return sounds.at_level(sounds.warped(said, warp), level_db)


def in_noise(pcm: Pcm, chance: random.Random, *, level_db: float) -> Pcm:
    """Over a noise of the room between 15 and 45 dB softer than `level_db`."""
    floor_db = level_db - chance.uniform(15, 45)
    room = sounds.noise(len(pcm), chance) * 10 ** (floor_db / 20)
    return np.clip(pcm + room, -1, 1).astype(np.float32)


def turn_example(chance: random.Random, *, pool: Pool) -> Labelled:
    """(a turn with the silence behind it, 1 where it is complete)."""
    voice = voices.draw(chance, is_held_out=pool.is_held_out)
    is_complete = chance.random() < 0.5
    make: Callable[..., Pcm] = complete if is_complete else _first_half
    return heard_turn(make(chance, voice, pool=pool), chance), int(is_complete)


def heard_turn(said: Pcm, chance: random.Random) -> Pcm:
    """A turn as it comes from a microphone, with the silence that makes one ask for its end."""
    level_db = chance.uniform(-38, -16)
    said = sounds.at_level(said, level_db)
    if chance.random() < 0.3:
        said = sounds.in_room(said, chance, wetness=chance.uniform(0.1, 0.5))[: len(said) + 800]
    padded = np.concatenate([silence(250), said, silence(chance.uniform(110, 190))])
    return in_noise(padded, chance, level_db=level_db)


def sound_example(
    chance: random.Random, *, pool: Pool, num_tellings: int = 1
) -> list[tuple[Pcm, float, int]]:
    """(a sound that began 130 to 680 ms ago, the user's usual level, its index in `KINDS`): one
    utterance, told at different times by throats of different sizes (held-out ones: of one).
    """
    voice = voices.draw(chance, is_held_out=pool.is_held_out)
    label = chance.randrange(len(KINDS))
    words = chance.getrandbits(32)
    return [
        _told(chance, random.Random(words), voice, label, pool=pool) for _ in range(num_tellings)
    ]


def _told(
    chance: random.Random, words: random.Random, voice: Voice, label: int, *, pool: Pool
) -> tuple[Pcm, float, int]:
    usual_db = chance.uniform(-36, -16)
    made = interjection(
        KINDS[label],
        words,
        voice,
        usual_db=usual_db,
        pool=pool,
        warp=1.0 if pool.is_held_out else chance.uniform(*WARP),
    )
    before = chance.uniform(80, 200)
    told = round((before + chance.uniform(130, 680)) * SAMPLES_PER_MS)
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


def _first_half(chance: random.Random, voice: Voice, *, pool: Pool) -> Pcm:
    return halves(chance, voice, pool=pool)[0]


def _long_text(chance: random.Random, pool: Pool) -> str:
    while len((text := sentences.draw(chance, pool)).split()) < MIN_WORDS:
        pass
    return text


def parted(chance: random.Random, voice: Voice, text: str) -> tuple[Pcm, Pcm]:
    """A text of `MIN_WORDS` or more in two parts: up to a pause inside it, and what follows."""
    words = text.split()
    cut = chance.randint(2, len(words) - 2)
    draw = chance.random()
    if draw < 0.35:
        return _cut(voices.say(text, voice), cut)
    begun = " ".join(words[:cut]).rstrip(",.?")
    rest = voices.say(" ".join(words[cut:]), voice).pcm
    if draw < 0.55:
        return voices.say(f"{begun}, {chance.choice(sentences.TRAILING)},", voice).pcm, rest
    first = voices.say(f"{begun},", voice).pcm
    if draw < 0.75:
        return first, rest
    slow = replace(voice, rate=0.8)
    filled = voices.say(chance.choice(sentences.FILLERS), slow).pcm
    return np.concatenate([first, silence(chance.uniform(0, 150)), filled]), rest


def _cut(said: Clip, behind_word: int) -> tuple[Pcm, Pcm]:
    """Inside its melody: behind a word, or where it is softest about there if the times of the
    words are not known.
    """
    if said.word_ends:
        end = said.word_ends[behind_word - 1]
    else:
        end = _softest(said.pcm, round(len(said.pcm) * behind_word / len(said.text.split())))
    return faded(said.pcm[:end]), said.pcm[end:]


def _softest(pcm: Pcm, near: int) -> int:
    """The end of the softest 20 ms around a sample."""
    power = np.square(pcm[: len(pcm) // CUT_FRAME * CUT_FRAME]).reshape(-1, CUT_FRAME).mean(axis=1)
    first = max(4, near // CUT_FRAME - CUT_REACH_FRAMES)
    reach = power[first : near // CUT_FRAME + CUT_REACH_FRAMES]
    return (first + int(reach.argmin()) + 1) * CUT_FRAME if len(reach) else near
