"""The tokenizer of a tiny checkpoint: Qwen's kind and special ids, few words.

A byte-level BPE is trained on the sentences below. Tokens that Qwen's published vocabulary is
known by keep their ids (newline, `user`, `system`, `assistant`, all special tokens), so the other
ids have gaps. Special tokens stand in the BPE's vocabulary as well: that is how their ids survive
the gaps. Writes files; encoding and decoding is `models.chat`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models.chat_template import CHATML
from models.detokenizer import byte_characters

NUM_MERGES = 1000
WORD_IDS = {"user": 872, "system": 8948, "assistant": 77091}
FIRST_SPECIAL_ID = 151643
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>", "<|audio_start|>", "<|audio_end|>"),
    *("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>"),
)
# Qwen marks these as ordinary added tokens: they are visible in a reply's text.
VISIBLE_TOKENS = frozenset(
    [token for token in SPECIAL_TOKENS if token.startswith("<|fim_")]
    + ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
    + ["<think>", "</think>", "<|repo_name|>", "<|file_sep|>"]
)
# Qwen2's division into words: contractions, letters, single digits, punctuation, newlines, spaces.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUNCTUATION = frozenset(".,?!")
SENTENCES = (
    "Hello, how are you today? I am fine, thank you, and what about you?",
    "Good morning. The weather is warm and the sky is blue over the little town.",
    "Yes, of course. Please tell me more about the house where you live.",
    "No, I do not think so, but let me look at the picture once again.",
    "There is a red cup on the table, and behind it I can see two green plants.",
    "The cat sleeps under the chair while the dog runs around the garden.",
    "What time is it now? It is half past seven, time for a cup of coffee.",
    "She walked along the river, and the water was clear and cold.",
    "We could take the train to the city or we could stay here and read.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "Can you hear me well? Speak a little louder, please, the street is noisy.",
    "My favourite song is playing on the radio, so let us listen for a while.",
    "He put the book back on the shelf and closed the window before the rain came.",
    "Thank you very much, that was kind of you. See you tomorrow, good night!",
    "A small boat with a white sail is moving slowly across the lake.",
    "I would like some bread, some cheese, and a glass of milk.",
    "The children are laughing because the clown has lost his big yellow shoe.",
    "Turn left at the corner, then go straight on until you see the old bridge.",
    "It may snow in the evening, so take your gloves and your warm coat.",
    "Sometimes the answer is simple, and sometimes there is no answer at all.",
)


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.json into `folder`."""
    special = list(enumerate(SPECIAL_TOKENS, FIRST_SPECIAL_ID))
    added = [
        {
            "id": index,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": text not in VISIBLE_TOKENS,
        }
        for index, text in special
    ]
    trained = _train()
    trained["added_tokens"] = added
    trained["model"]["vocab"].update({text: index for index, text in special})
    _write(folder / "tokenizer.json", trained)
    _write(folder / "tokenizer_config.json", _tokenizer_config(added))
    _write(folder / "chat_template.json", {"chat_template": CHATML})


def word_ids(tokenizer_json: Mapping[str, Any]) -> list[int]:
    """Ids of the tokens that are whole words of the sentences, with a space, or punctuation."""
    words = {f" {word}" for sentence in SENTENCES for word in re.findall(r"\w+", sentence)}
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    added = {token["id"] for token in tokenizer_json["added_tokens"]}
    found = []
    for piece, index in tokenizer_json["model"]["vocab"].items():
        if index not in added:
            text = bytes(byte_of[character] for character in piece).decode("utf-8", "replace")
            if text in words or text in PUNCTUATION:
                found.append(index)
    return sorted(found)


def _train() -> dict[str, Any]:
    """A trained byte-level BPE as the JSON of tokenizer.json, with Qwen's ids where known."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + NUM_MERGES,
        initial_alphabet=byte_characters(),
        show_progress=False,
    )
    words = [f"{word}\n" * 100 for word in WORD_IDS]  # often enough to become tokens
    tokenizer.train_from_iterator([*SENTENCES, *words], trainer)
    trained: dict[str, Any] = json.loads(tokenizer.to_str())
    merged = [left + right for left, right in trained["model"]["merges"]]
    trained["model"]["vocab"] = _numbered(merged)
    return trained


def _numbered(merged: list[str]) -> dict[str, int]:
    """Ids as Qwen has them: first the bytes, printable ones before the others, then the merges."""
    printable = [c for byte, c in enumerate(byte_characters()) if ord(c) == byte]
    others = [c for byte, c in enumerate(byte_characters()) if ord(c) != byte]
    taken = set(WORD_IDS.values())
    free = (index for index in range(256, FIRST_SPECIAL_ID) if index not in taken)
    ids = {piece: index for index, piece in enumerate([*printable, *others])}
    for piece in dict.fromkeys(merged):
        ids[piece] = WORD_IDS[piece] if piece in WORD_IDS else next(free)
    assert WORD_IDS.keys() <= ids.keys()
    return ids


def _tokenizer_config(added: list[dict[str, Any]]) -> dict[str, Any]:
    described = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in added
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": described,
        "additional_special_tokens": [t["content"] for t in added if t["special"]],
        "bos_token": None,
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
