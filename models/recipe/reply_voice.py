"""The sentences of the voice that replies, and their sound: for codec, vocoder and talker.

Sentences are chosen once per work folder; sound is made by the synthesizer when it is first asked
for.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.recipe import phrases
from models.recipe.codec import Codec
from models.recipe.dialogues import spoken_replies
from models.recipe.sound import resampled, trimmed
from models.recipe.spectra import SAMPLE_RATE_HZ
from models.recipe.voices import REPLY_VOICE, say
from models.recipe.voices import SAMPLE_RATE_HZ as VOICE_RATE_HZ

NUM_CONVERSATIONS = 3000
NUM_EXTRA_SENTENCES = 600  # of words in no order, for sounds that no reply has
NUM_HELD_OUT = 200
LEVEL = 0.1  # root mean square of the reply voice
END_SAMPLES = 600  # of silence behind a sentence: its last samples come with the next frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """What the vocoder learns from, and what it is tested with: no sentence is in both."""

    train: list[str]
    held_out: list[str]


def sentences_to_speak(work: Path, seed: int) -> Sentences:
    """Those of sentences.json: chosen once, or a later test would meet what was learnt."""
    path = work / "sentences.json"
    if not path.exists():
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(asdict(_choose_sentences(seed)), indent=1))
        unfinished.rename(path)
    return Sentences(**json.loads(path.read_text(encoding="utf-8")))


def _choose_sentences(seed: int) -> Sentences:
    chance = random.Random(seed)
    train_texts = spoken_replies("train", range(NUM_CONVERSATIONS))
    held_out = [
        text
        for text in spoken_replies("held_out", range(NUM_CONVERSATIONS))
        if text not in set(train_texts)
    ]
    words = sorted({word.strip(".,!?") for text in train_texts for word in text.split()})
    names = list(phrases.NAMES)
    extra = [
        " ".join(chance.sample(words + names, chance.randint(3, 7)))
        for _ in range(NUM_EXTRA_SENTENCES)
    ]
    return Sentences(
        train=train_texts + extra,
        held_out=chance.sample(held_out, min(NUM_HELD_OUT, len(held_out))),
    )


def reply_speech(text: str, work: Path) -> Tensor:
    """The reply voice at 24 kHz: trimmed, of one level."""
    pcm = trimmed(say(text, REPLY_VOICE, work / "voices"), VOICE_RATE_HZ)
    pcm = resampled(pcm, VOICE_RATE_HZ, SAMPLE_RATE_HZ)
    level = float(np.sqrt(np.mean(np.square(pcm)))) + 1e-6
    return torch.from_numpy(np.clip(pcm * (LEVEL / level), -0.98, 0.98).astype(np.float32))


def reply_codes(text: str, codec: Codec, work: Path) -> Tensor:
    """Codes of the reply voice [n, quantizers]; silence behind it, for the end comes late out of
    the vocoder.
    """
    pcm = reply_speech(text, work)
    return codec.encode(torch.cat([pcm, pcm.new_zeros(END_SAMPLES)]))
