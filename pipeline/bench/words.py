"""How many words of a known text a cut sound holds, by a recogniser that knows nothing of us.

pocketsphinx is made to hear the beginning of the text, however long: a grammar in which each word
may be the last one. A word that is cut counts where it is heard.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm, Pcm16
from pipeline.resample import resample

RATE_HZ = 16_000
SILENCE_S = 0.3
FRAME_SAMPLES = RATE_HZ // 100
MAX_GAP_FRAMES = 3
LEAST_S = 0.5  # of sound in which it must find a word
SILENT = 0.003  # of full scale
PEAK = 0.7
MAX_GAIN = 8.0


def words_heard(pcm: Pcm16, text: str) -> int | None:
    """pcm: [num_samples] int16 at 24 kHz, the text's beginning.

    None where it can not be known: no recogniser is installed, it does not know a word, or it
    makes nothing of what sounds.
    """
    words = [_plain(word) for word in text.split()]
    if not words or not _dictionary().issuperset(words):
        return None
    import pocketsphinx  # type: ignore[import-untyped]

    rest = ""
    for word in reversed(words):
        rest = f"[ {word} {rest}]"
    decoder: Any = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
    decoder.add_jsgf_string("begun", f"#JSGF V1.0; grammar begun; public <begun> = {rest};")
    decoder.activate_search("begun")
    samples = _closed(
        resample((pcm / 32768).astype(np.float32), in_hz=ENGINE_OUTPUT_HZ, out_hz=RATE_HZ)
    )
    decoder.start_utt()
    decoder.process_raw(_prepared(samples), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    num_words = len(found.hypstr.split()) if found is not None else 0
    is_something = len(samples) > LEAST_S * RATE_HZ
    return None if is_something and not num_words else num_words


def _prepared(samples: Pcm) -> bytes:
    """As the recogniser likes it: loud, between silences."""
    gain = min(MAX_GAIN, PEAK / (float(np.abs(samples).max(initial=0.0)) + 1e-6))
    silence = np.zeros(round(SILENCE_S * RATE_HZ))
    padded = np.concatenate([silence, samples * gain, silence])
    return bytes(np.clip(32767 * padded, -32767, 32767).astype("<i2").tobytes())


def _closed(samples: Pcm) -> Pcm:
    """Silences cut down to `MAX_GAP_FRAMES`: a voice that came in pieces is one again."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    is_silent = np.abs(frames).max(axis=1, initial=0.0) < SILENT
    kept, length = [], 0
    for frame, silent in zip(frames, is_silent, strict=True):
        length = length + 1 if silent else 0
        if length <= MAX_GAP_FRAMES:
            kept.append(frame)
    return np.concatenate(kept) if kept else samples[:0]


def _plain(word: str) -> str:
    return re.sub(r"[^a-z']", "", word.lower())


@cache
def _dictionary() -> frozenset[str]:
    try:
        import pocketsphinx
    except ImportError:
        return frozenset()
    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(line.split(" ", 1)[0] for line in lines)
