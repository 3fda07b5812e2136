"""A work folder out of a checkpoint that the recipe has made: training goes on where it ended.

Beside the weights lie the steps that each stage has learnt, and the codec: talker and vocoder know
its codes and no others. What is made anew are the optimisers' states. The head for phonemes is not
stored, and no longer trained: it was for the beginning.
Rates rise once more, and then fall as if they had never stopped. Words that the conversations have
gained since get ids behind all others, and embeddings of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.config import parse_config, read_config
from models.errors import CheckpointError
from models.qwen3_omni.model import Qwen3Omni
from models.recipe import hearing, sight, talker, thinker, vocoder
from models.recipe.codec import Codec
from models.recipe.hearing import Pupil
from models.recipe.learner import (
    Learner,
    new_learner,
    save_table,
    save_vocabulary,
    todays_vocabulary,
)
from models.recipe.phonemes import num_phonemes, word_phonemes
from models.recipe.run import Pace, Run, saved_step
from models.recipe.sizes import embedded_config
from models.recipe.thinker import decoder_of
from models.recipe.tokenizer import read_vocabulary
from models.weights import load_weights

FILE = "training.safetensors"
_PACES: Mapping[str, Pace] = {
    "hearing": hearing.PACE,
    "sight": sight.PACE,
    "thinker": thinker.PACE,
    "talker": talker.PACE,
    "vocoder": vocoder.PACE,
}
LEARNT = tuple(_PACES)
CODEC_FILE = "codec.pt"


def begin_from(checkpoint: Path, work: Path, seed: int) -> None:
    """Fill `work`, which holds nothing trained, with what a checkpoint of the recipe has learnt.

    Raises:
        CheckpointError: the recipe has not made the checkpoint, or with other sizes, or
        espeak-ng is not installed.
    """
    steps, codec = _read(checkpoint)
    vocabulary = read_vocabulary(checkpoint)
    config = read_config(checkpoint)
    if config != replace(parse_config(embedded_config(vocabulary)), dtype=config.dtype):
        raise CheckpointError(f"{checkpoint} has other sizes than the recipe's")
    grown = vocabulary.with_pieces(todays_vocabulary().pieces)
    learner = new_learner(grown, seed)
    model = Qwen3Omni(config)
    load_weights(model, checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    model.requires_grad_(True)
    _take_over(learner, model.thinker.state_dict(), vocabulary.size - len(vocabulary.pieces))
    pupil = Pupil(learner.thinker.audio_tower, num_phonemes(word_phonemes(learner)))
    modules = {
        "hearing": pupil,
        "sight": learner.thinker.visual,
        "thinker": decoder_of(learner),
        "talker": model.talker,
        "vocoder": model.code2wav,
    }
    work.mkdir(parents=True, exist_ok=True)
    save_vocabulary(grown, work)
    save_table(learner, work)
    codec.save(work / CODEC_FILE)
    for name, module in modules.items():
        assert module is not None
        run = Run.new(module, _PACES[name], seed, step=steps[name])
        run.save(work / f"{name}.pt")


def _take_over(learner: Learner, known: Mapping[str, Tensor], num_special: int) -> None:
    """Give a learner the weights of one with fewer words; rows of new words stay as they are."""
    merged = dict(known)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = learner.thinker.state_dict()[name].clone()
        num_words = len(known[name]) - num_special
        rows[:num_words] = known[name][:num_words]
        rows[-num_special:] = known[name][-num_special:]
        merged[name] = rows
    learner.thinker.load_state_dict(merged)


def write_training(work: Path, checkpoint: Path) -> None:
    """Write beside a checkpoint's weights what going on from it takes."""
    codec = Codec.load(work / CODEC_FILE)
    tensors = {name: tensor.half().contiguous() for name, tensor in asdict(codec).items()}
    steps = {name: str(saved_step(work / f"{name}.pt")) for name in LEARNT}
    save_file(tensors, checkpoint / FILE, metadata=steps)
    (checkpoint / FILE).chmod(0o644)


def _read(checkpoint: Path) -> tuple[Mapping[str, int], Codec]:
    path = checkpoint / FILE
    if not path.exists():
        raise CheckpointError(f"{checkpoint} holds no {FILE}: the recipe has not made it")
    try:
        with safe_open(path, framework="pt") as file:
            steps = {name: int(file.metadata()[name]) for name in LEARNT}
            names = ("mean", "basis", "books")
            return steps, Codec(**{name: file.get_tensor(name).float() for name in names})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"can not read {path}: {error!r}") from error
