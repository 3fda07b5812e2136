"""Where a long text may be divided so that its stretches encode to the ids of the whole.

Reading a text to ids takes the engine's thread about a second for a million characters; by
stretches it is a few ms at a time. The division of Qwen's tokenizers into words (`tests` hold them
against it) always ends a word behind a letter that no letter follows.
"""

from __future__ import annotations

MAX_CHARS = 8_192

# What begins a word of its own behind a letter, and neither composes with it (NFC) nor is a part of
# a special token.
WORD_ENDS = frozenset(" \t\n\r,.:;!?\"'()[]{}0123456789，。、：；！？“”")


def stretch_of(text: str) -> int:
    """How many characters to encode next: all of a short text. Where the text has no end of a word
    in reach, a word is divided.
    """
    if len(text) <= MAX_CHARS:
        return len(text)
    for stop in range(MAX_CHARS, MAX_CHARS // 2, -1):
        if text[stop] in WORD_ENDS and text[stop - 1].isalpha():
            return stop
    return MAX_CHARS
