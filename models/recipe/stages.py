"""The stages of the recipe over one work folder: each reads what the ones before have left.

data: the reply voice's sentences. codec: codes of that voice. vocoder: code2wav. Sentences that
were spoken are not spoken again; a stage that trains goes on for the minutes that it is given.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.config import VocoderConfig, parse_config
from models.errors import CheckpointError
from models.recipe import phrases
from models.recipe.codec import Codec, learn_codec
from models.recipe.dialogues import spoken_replies
from models.recipe.sizes import CODE2WAV, CODEBOOK_SIZE, NUM_COMPONENTS, NUM_QUANTIZERS
from models.recipe.sound import resampled, trimmed
from models.recipe.spectra import SAMPLE_RATE_HZ
from models.recipe.vocoder import new_clip, new_run, train
from models.recipe.voices import REPLY_VOICE, missing_programs, say
from models.recipe.voices import SAMPLE_RATE_HZ as VOICE_RATE_HZ
from models.tiny_config import tiny_config

logger = logging.getLogger(__name__)

NUM_CONVERSATIONS = 3000
NUM_EXTRA_SENTENCES = 600  # of words in no order, for sounds that no reply has
NUM_HELD_OUT = 200
LEVEL = 0.1  # root mean square of the reply voice


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


def vocoder_config() -> VocoderConfig:
    """The embedded model's."""
    config = parse_config(tiny_config({"code2wav_config": CODE2WAV})).vocoder
    assert config is not None
    return config


def make_data(work: Path, seed: int, minutes: float) -> None:
    """Speak every sentence of the reply voice once."""
    sentences = sentences_to_speak(work, seed)
    for text in (*sentences.train, *sentences.held_out):
        reply_speech(text, work)


def make_codec(work: Path, seed: int, minutes: float) -> None:
    """Learn the codec from the training sentences, once: what is trained later rests on it."""
    if (work / "codec.pt").exists():
        return
    clips = [reply_speech(text, work) for text in sentences_to_speak(work, seed).train]
    codec = learn_codec(
        clips,
        num_quantizers=NUM_QUANTIZERS,
        codebook_size=CODEBOOK_SIZE,
        num_components=NUM_COMPONENTS,
        seed=seed,
    )
    codec.save(work / "codec.pt")


def train_vocoder(work: Path, seed: int, minutes: float) -> None:
    """Go on with code2wav."""
    codec = _codec(work)
    run = new_run(vocoder_config(), codec, seed)
    path = work / "vocoder.pt"
    if path.exists():
        run.load(path)
    texts = sentences_to_speak(work, run.seed).train
    clips = [new_clip(reply_speech(text, work), codec) for text in texts]
    train(run, clips, path, minutes)


STAGES: Mapping[str, Callable[[Path, int, float], None]] = {
    "data": make_data,
    "codec": make_codec,
    "vocoder": train_vocoder,
}


def run_stages(
    work: Path, names: Sequence[str], *, seed: int, minutes: float, is_resumed: bool
) -> None:
    """Run these stages in order, on one thread.

    Args:
        minutes: for each stage that trains.
        is_resumed: go on with what `work` holds; else it must hold nothing that was trained.

    Raises:
        CheckpointError: something was trained there already, an earlier stage has not run, or a
        program is missing.
    """
    missing = missing_programs()
    if missing:
        raise CheckpointError(f"not installed: {', '.join(missing)} (packages of the same name)")
    trained = [path.name for path in work.glob("*.pt")]
    if trained and not is_resumed:
        raise CheckpointError(f"{work} holds {', '.join(trained)}; --resume goes on with them")
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # two on a busy machine are many times slower
    for name in names:
        logger.info("stage %s", name)
        STAGES[name](work, seed, minutes)


def _codec(work: Path) -> Codec:
    path = work / "codec.pt"
    if not path.exists():
        raise CheckpointError(f"{work} holds no codec.pt; the stage codec makes it")
    return Codec.load(path)
