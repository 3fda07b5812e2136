"""The model that learns: thinker with encoders, tokenizer, and a first value for every weight."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.chat import ChatFormat
from models.chat_template import ChatTemplate
from models.config import OmniConfig, parse_config
from models.qwen3_omni.thinker import Thinker
from models.qwen3_omni.vision_encoder import PatchMerger
from models.recipe.acting import TOOLS
from models.recipe.batches import build_constants
from models.recipe.dialogues import all_texts
from models.recipe.first_sight import look_nearby
from models.recipe.sizes import embedded_config
from models.recipe.template import TEMPLATE
from models.recipe.tokenizer import Vocabulary, learn_vocabulary, write_tokenizer
from models.recipe.utterances import UNKNOWN

NUM_VOCABULARY_CONVERSATIONS = 3000
VOCABULARY_FILE = "vocabulary.json"
TABLE_FILE = "table.pt"
HEAD_SCALE = 0.125  # of the table: rows as long as those of any other matrix here


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A thinker with what turns words into its input."""

    thinker: Thinker
    config: OmniConfig
    chat: ChatFormat
    vocabulary: Vocabulary

    @property
    def table(self) -> Tensor:
        """[vocabulary, hidden]: what each token is read as. Stays as it was drawn."""
        return self.thinker.model.embed_tokens.weight.detach()

    @property
    def letters(self) -> Tensor:
        """[vocabulary] float32, letters of each piece of text; 1 of special tokens."""
        lengths = [len(piece.removeprefix("Ġ")) for piece in self.vocabulary.pieces]
        return torch.tensor(lengths + [1] * (self.vocabulary.size - len(lengths))).float()

    def word_ids(self, text: str) -> list[int]:
        """Ids of spoken words; one that is UNKNOWN, or is not in the vocabulary, is one id."""
        found = (self.chat.encode(f" {word}") for word in text.split())
        return [ids[0] if len(ids) == 1 else self.unknown_id for ids in found]

    @property
    def unknown_id(self) -> int:
        """What a word that is not the model's is heard as."""
        (found,) = self.chat.encode(UNKNOWN)
        return found


def work_vocabulary(work: Path) -> Vocabulary:
    """That of vocabulary.json in `work`: learnt once, the tables follow from it."""
    path = work / VOCABULARY_FILE
    if not path.exists():
        save_vocabulary(todays_vocabulary(), work)
    return Vocabulary(pieces=tuple(json.loads(path.read_text(encoding="utf-8"))))


def todays_vocabulary() -> Vocabulary:
    """What the conversations, as they are now, are made of."""
    system = ChatTemplate(TEMPLATE).system("", TOOLS)
    return learn_vocabulary([*all_texts(NUM_VOCABULARY_CONVERSATIONS), system, system])


def save_vocabulary(vocabulary: Vocabulary, work: Path) -> None:
    """Write it into a work folder: whole or not at all."""
    path = work / VOCABULARY_FILE
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(vocabulary.pieces, indent=0), encoding="utf-8")
    unfinished.rename(path)


def work_learner(work: Path, seed: int = 0) -> Learner:
    """An untrained model for a work folder: its words, and its table where it keeps one, because
    that was drawn by another seed, or for fewer words.
    """
    learner = new_learner(work_vocabulary(work), seed)
    path = work / TABLE_FILE
    if path.exists():
        table = torch.load(path, weights_only=True)
        with torch.no_grad():
            learner.table.copy_(table)
            learner.thinker.lm_head.weight.copy_(table * HEAD_SCALE)
    return learner


def save_table(learner: Learner, work: Path) -> None:
    """Keep a learner's table in a work folder."""
    torch.save(learner.table.clone(), work / TABLE_FILE)


def new_learner(vocabulary: Vocabulary, seed: int) -> Learner:
    """An untrained model of the embedded sizes with these words."""
    return build_learner(embedded_config(vocabulary), vocabulary, seed=seed)


def build_learner(raw: Mapping[str, Any], vocabulary: Vocabulary, *, seed: int) -> Learner:
    """An untrained model of the sizes of a config.json."""
    config = parse_config(raw)
    with tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(Path(scratch), vocabulary)
        chat = ChatFormat.load(Path(scratch), config)
    torch.manual_seed(seed)
    capture_layer = None if config.talker is None else config.talker.accept_hidden_layer
    thinker = Thinker(config.thinker, capture_layer=capture_layer)
    for name, parameter in thinker.named_parameters():
        initialise(name, parameter)
    # Pictures' features for the first layers begin as nothing and grow where they help.
    for merger in thinker.visual.merger_list:
        nn.init.zeros_(cast(nn.Linear, cast(PatchMerger, merger).mlp[2]).weight)
    thinker.model.embed_tokens.weight.requires_grad_(False)
    with torch.no_grad():  # to say again what was heard is then one linear map for all words
        thinker.lm_head.weight.copy_(thinker.model.embed_tokens.weight * HEAD_SCALE)
    build_constants(thinker)
    look_nearby(thinker.visual)
    return Learner(thinker=thinker, config=config, chat=chat, vocabulary=vocabulary)


@torch.no_grad()
def initialise(name: str, parameter: Tensor) -> None:
    """First values of a transformer's weight, by its name and shape."""
    if parameter.dim() == 1:
        is_norm = "norm" in name or "ln_" in name
        nn.init.constant_(parameter, 1.0 if is_norm and name.endswith("weight") else 0.0)
        return
    fan_in = parameter.shape[-1] if parameter.dim() == 3 else parameter[0].numel()
    is_table = any(part in name for part in ("embed_tokens", "pos_embed", "codec_embedding"))
    is_branch = name.endswith(("o_proj.weight", "down_proj", "down_proj.weight", "fc2.weight"))
    std = 0.5 if is_table else (0.4 if is_branch else 1.0) * fan_in**-0.5
    if "conv" in name:
        std *= 1.75  # features are small, GELU halves them, and positions must not drown them
    nn.init.normal_(parameter, std=std)
