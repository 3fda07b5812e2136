"""Token ids -> visible text, one token at a time.

Characters may span tokens: bytes wait until they make whole characters. Tokens that are marked
special, and ids without a token, are silent. The result of any sequence equals decoding it whole
without its special tokens. For byte-level tokenizers only, as all of Qwen's are.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any

from models.errors import CheckpointError


class IncrementalDetokenizer:
    """Reads one reply. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, bytes_of: Mapping[int, bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that became certain with this token, "" where none did."""
        return self._decoder.decode(self._bytes_of.get(token, b""))

    def flush(self) -> str:
        """The rest: the start of a character that never came whole."""
        return self._decoder.decode(b"", final=True)


def token_bytes(tokenizer_json: Mapping[str, Any]) -> dict[int, bytes]:
    """Id -> its bytes, for every token that is visible.

    Raises:
        CheckpointError: the tokenizer is not a byte-level one.
    """
    if not _is_byte_level(tokenizer_json.get("decoder") or {}):
        raise CheckpointError("tokenizer.json: only byte-level tokenizers are supported")
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    found: dict[int, bytes] = {}
    for piece, index in tokenizer_json["model"]["vocab"].items():
        found[index] = _bytes(piece, byte_of)
    for token in tokenizer_json.get("added_tokens", ()):
        found[token["id"]] = b"" if token["special"] else token["content"].encode()
    return found


def byte_characters() -> list[str]:
    """The printable character by which a byte-level vocabulary spells each byte 0 .. 255.

    Printable bytes of Latin-1 stand for themselves, the others for U+0100 and on, in order
    (GPT-2's table).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _bytes(piece: str, byte_of: Mapping[str, int]) -> bytes:
    if all(character in byte_of for character in piece):
        return bytes(byte_of[character] for character in piece)
    return piece.encode()


def _is_byte_level(decoder: Mapping[str, Any]) -> bool:
    if decoder.get("type") == "Sequence":
        return any(_is_byte_level(part) for part in decoder.get("decoders", ()))
    return decoder.get("type") == "ByteLevel"
