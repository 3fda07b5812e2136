"""The stages of the recipe over one work folder: each reads what the ones before have left.

data: the reply voice's sentences. codec: codes of that voice. vocoder: code2wav. utterances: what
users say. hearing, sight, language: each encoder and the decoder alone. thinker: these three
together. talker: text to codes.

Sentences that were spoken are not spoken again; a stage that trains goes on for the minutes that it
is given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from models.config import VocoderConfig, parse_config
from models.errors import CheckpointError
from models.recipe.codec import Codec, learn_codec
from models.recipe.hearing_stage import make_utterances, train_hearing
from models.recipe.reply_voice import reply_speech, sentences_to_speak
from models.recipe.run import Effort
from models.recipe.sight_stage import train_sight
from models.recipe.sizes import CODE2WAV, CODEBOOK_SIZE, NUM_COMPONENTS, NUM_QUANTIZERS
from models.recipe.talker_stage import train_talker
from models.recipe.thinker_stage import train_language, train_thinker
from models.recipe.vocoder import new_clip, new_run, train
from models.recipe.voices import missing_programs
from models.recipe.warm_start import begin_from
from models.tiny_config import tiny_config

logger = logging.getLogger(__name__)


def vocoder_config() -> VocoderConfig:
    """The embedded model's."""
    config = parse_config(tiny_config({"code2wav_config": CODE2WAV})).vocoder
    assert config is not None
    return config


def make_data(work: Path, seed: int, effort: Effort) -> None:
    """Speak every sentence of the reply voice once."""
    sentences = sentences_to_speak(work, seed)
    for text in (*sentences.train, *sentences.held_out):
        reply_speech(text, work)


def make_codec(work: Path, seed: int, effort: Effort) -> None:
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


def train_vocoder(work: Path, seed: int, effort: Effort) -> None:
    """Go on with code2wav."""
    codec = _codec(work)
    run = new_run(vocoder_config(), codec, seed)
    path = work / "vocoder.pt"
    if path.exists():
        run.load(path)
    texts = sentences_to_speak(work, run.seed).train
    clips = [new_clip(reply_speech(text, work), codec) for text in texts]
    train(run, clips, path, effort)


STAGES: Mapping[str, Callable[[Path, int, Effort], None]] = {
    "data": make_data,
    "codec": make_codec,
    "vocoder": train_vocoder,
    "utterances": make_utterances,
    "hearing": train_hearing,
    "sight": train_sight,
    "language": train_language,
    "thinker": train_thinker,
    "talker": train_talker,
}


def run_stages(
    work: Path,
    names: Sequence[str],
    *,
    seed: int,
    minutes: float,
    rate: float = 1.0,
    is_resumed: bool,
    begin_with: Path | None = None,
) -> None:
    """Run these stages in order, on one thread.

    Args:
        minutes, rate: see `Effort`; of each stage that trains.
        is_resumed: go on with what `work` holds; else it must hold nothing that was trained.
        begin_with: a checkpoint of the recipe to go on from, instead of from nothing.

    Raises:
        CheckpointError: something was trained there already, an earlier stage has not run, a
        program is missing, or there is no going on from that checkpoint.
    """
    missing = missing_programs()
    if missing:
        raise CheckpointError(f"not installed: {', '.join(missing)} (packages of the same name)")
    trained = [path.name for path in work.glob("*.pt")]
    if trained and not is_resumed:
        raise CheckpointError(f"{work} holds {', '.join(trained)}; --resume goes on with them")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{work} can not be a folder: {error.strerror}") from error
    torch.set_num_threads(1)  # two on a busy machine are many times slower
    if begin_with is not None:
        begin_from(begin_with, work, seed)
    for name in names:
        logger.info("stage %s", name)
        STAGES[name](work, seed, Effort(minutes=minutes, rate=rate))


def _codec(work: Path) -> Codec:
    path = work / "codec.pt"
    if not path.exists():
        raise CheckpointError(f"{work} holds no codec.pt; the stage codec makes it")
    return Codec.load(path)
