"""An independent recogniser as the judge of spoken replies: which text of a closed list is it?

Uses pocketsphinx with a grammar of whole sentences, so the score says how much is understood.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from clients.bench.errors import BenchError
from clients.bench.exam import plain
from clients.bench.measure import Pcm16
from clients.bench.speech import resampled

RATE_HZ = 16_000
SILENCE_S = 0.3
PEAK = 0.7
MAX_GAIN = 8.0


class Judge:
    """Picks one of `texts`; those with a word that the recogniser does not know are left out.

    Raises:
        BenchError: none is left.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        import pocketsphinx  # type: ignore[import-untyped]

        dictionary = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
        lines = dictionary.read_text(encoding="utf-8").splitlines()
        known = {line.split(" ", 1)[0] for line in lines}
        self.texts = frozenset(p for p in map(plain, texts) if p and known.issuperset(p.split()))
        if not self.texts:
            raise BenchError("there is no recording of a right reply that the recogniser knows")
        choices = " | ".join(f"( {words} )" for words in sorted(self.texts))
        grammar = f"#JSGF V1.0; grammar replies; public <reply> = {choices};"
        self._decoder: Any = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
        self._decoder.add_jsgf_string("replies", grammar)
        self._decoder.activate_search("replies")

    def heard(self, pcm: Pcm16, rate_hz: int) -> str:
        """The text that is heard in [n] samples, as `plain`; "" where it is none of them."""
        samples = resampled(pcm, rate_hz, RATE_HZ).astype(np.float32)
        gain = min(MAX_GAIN, PEAK * 32768 / (float(np.abs(samples).max(initial=0.0)) + 1e-6))
        silence = np.zeros(round(SILENCE_S * RATE_HZ), dtype=np.float32)
        padded = np.clip(np.concatenate([silence, samples * gain, silence]), -32768, 32767)
        self._decoder.start_utt()
        self._decoder.process_raw(padded.astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return str(hypothesis.hypstr) if hypothesis is not None else ""
