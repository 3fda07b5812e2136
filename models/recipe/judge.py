"""An independent recogniser as the judge of the reply voice: which sentence of a closed list is it?

Uses pocketsphinx (the `dev` extra) with a grammar of whole sentences, so the score says how much is
understood, not how good a language model is. Hears 16 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.content import Pcm

SAMPLE_RATE_HZ = 16_000
SILENCE_S = 0.3


class Judge:
    """Picks one of `texts`; those with a word that the recogniser does not know are left out."""

    def __init__(self, texts: Sequence[str]) -> None:
        import pocketsphinx  # type: ignore[import-untyped]

        dictionary = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
        known = {line.split(" ", 1)[0] for line in dictionary.read_text().splitlines()}
        self.texts = [text for text in texts if known.issuperset(plain(text).split())]
        self._by_words = {plain(text): text for text in self.texts}
        choices = " | ".join(f"( {words} )" for words in self._by_words)
        grammar = f"#JSGF V1.0; grammar replies; public <reply> = {choices};"
        self._decoder: Any = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
        self._decoder.add_jsgf_string("replies", grammar)
        self._decoder.activate_search("replies")

    def heard(self, pcm: Pcm) -> str | None:
        """The text that is heard in [n] samples; None: none of them."""
        silence = np.zeros(round(SILENCE_S * SAMPLE_RATE_HZ), dtype=np.float32)
        padded = np.concatenate([silence, pcm, silence])
        self._decoder.start_utt()
        samples = (np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes()
        self._decoder.process_raw(samples, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return self._by_words.get(hypothesis.hypstr) if hypothesis is not None else None


def plain(text: str) -> str:
    """Lower case, single spaces, no punctuation: as a grammar has it."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))
