"""The embedded model's tokenizer: bytes, the words of its conversations, Qwen's special tokens.

A byte-level BPE without merges: a word of the vocabulary is one token, any other text is bytes. Ids
have no gaps, so that tables stay small; config.json says where the special ones are. Reads no
file; writes the files that a checkpoint folder needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers

from models.detokenizer import byte_characters
from models.errors import CheckpointError
from models.recipe.template import TEMPLATE
from models.tiny_tokenizer import SPECIAL_TOKENS, VISIBLE_TOKENS, WORDS

ROLE_WORDS = ("system", "user", "assistant")
MIN_COUNT = 2  # words met less often are bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Texts of all ids: bytes, words, special tokens. `pieces` are in the tokenizer's alphabet."""

    pieces: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.pieces) + len(SPECIAL_TOKENS)

    def special_id(self, text: str) -> int:
        """Id of one of Qwen's special tokens."""
        return len(self.pieces) + SPECIAL_TOKENS.index(text)

    def word_id(self, word: str) -> int:
        """Id of a word; ValueError where it is not one token."""
        return self.pieces.index(_spelled(word))

    def with_pieces(self, others: Iterable[str]) -> Vocabulary:
        """The same, and behind them what it lacks: only the special tokens' ids change."""
        known = set(self.pieces)
        return Vocabulary(pieces=(*self.pieces, *(p for p in others if p not in known)))


def learn_vocabulary(texts: Iterable[str]) -> Vocabulary:
    """Words of `texts` as they stand there, a space before them included."""
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    counts: dict[str, int] = {}
    for text in texts:
        for piece, _ in split.pre_tokenize_str(text):
            counts[piece] = counts.get(piece, 0) + 1
    words = [word for word, count in counts.items() if count >= MIN_COUNT]
    spelled = sorted({*map(_spelled, words), *map(_spelled, ROLE_WORDS)})
    single = byte_characters()
    return Vocabulary(pieces=(*single, *(piece for piece in spelled if len(piece) > 1)))


def write_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.json into `folder`."""
    added = _added_tokens(vocabulary)
    _write(folder / "tokenizer.json", tokenizer_json(vocabulary))
    _write(folder / "tokenizer_config.json", _tokenizer_config(added))
    _write(folder / "chat_template.json", {"chat_template": TEMPLATE})


def read_vocabulary(folder: Path) -> Vocabulary:
    """That of a folder which `write_tokenizer` has written.

    Raises:
        CheckpointError: tokenizer.json can not be read, or is of another kind.
    """
    path = folder / "tokenizer.json"
    try:
        vocab = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        by_id = sorted(vocab, key=vocab.__getitem__)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"can not read {path}: {error!r}") from error
    pieces, special = by_id[: -len(SPECIAL_TOKENS)], by_id[-len(SPECIAL_TOKENS) :]
    if special != list(SPECIAL_TOKENS):
        raise CheckpointError(f"{path} is not one of the recipe's tokenizers")
    return Vocabulary(pieces=tuple(pieces))


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The contents of tokenizer.json."""
    vocab = {piece: index for index, piece in enumerate(vocabulary.pieces)}
    vocab.update({text: vocabulary.special_id(text) for text in SPECIAL_TOKENS})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": WORDS},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(),
            ],
        },
        "post_processor": None,
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a whole word needs no way to it
            "vocab": vocab,
            "merges": [],
        },
    }


def _byte_level() -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }


def _spelled(text: str) -> str:
    characters = byte_characters()
    return "".join(characters[byte] for byte in text.encode())


def _added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    return [
        {
            "id": vocabulary.special_id(text),
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": text not in VISIBLE_TOKENS,
        }
        for text in SPECIAL_TOKENS
    ]


def _tokenizer_config(added: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added
        },
        "additional_special_tokens": [t["content"] for t in added if t["special"]],
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 8192,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",  # a class of Qwen's would ask for merges
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
