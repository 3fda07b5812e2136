"""`generation_config.json` -> how text, speech codes and residual codes are sampled.

The talker's and the code predictor's are Qwen3-Omni's own, which no published file holds: they are
arguments of `generate` in Hugging Face `transformers`. Keys of the talker's arguments' names
(`talker_temperature`, ...) in the file are taken in their place. Nothing here samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.config import OmniConfig
from models.errors import CheckpointError, RequestError
from models.sampling import SamplingSettings

GREEDY = SamplingSettings(do_sample=False, top_k=50)
CODES = SamplingSettings(temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05)
RESIDUAL_CODES = SamplingSettings(temperature=1.0, top_k=50, top_p=0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """How a reply's text is made. `eos_ids` end it; `max_new_tokens` cuts it."""

    eos_ids: frozenset[int]
    sampling: SamplingSettings = GREEDY
    max_new_tokens: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSettings:
    """How the first code of each frame is made; `max_new_tokens` frames at most."""

    sampling: SamplingSettings = CODES
    max_new_tokens: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """All sampling of one checkpoint; `predictor` draws the residual codes."""

    thinker: TextSettings
    talker: SpeechSettings = field(default_factory=SpeechSettings)
    predictor: SamplingSettings = RESIDUAL_CODES


def read_generation(folder: Path, config: OmniConfig) -> GenerationSettings:
    """Read `folder/generation_config.json`; without the file the defaults hold.

    Raises:
        CheckpointError: the file is not a JSON object, or a value is out of its range (named).
    """
    path = folder / "generation_config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raw = {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can not read {path}: {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return parse_generation(raw, config)


def parse_generation(raw: Mapping[str, Any], config: OmniConfig) -> GenerationSettings:
    """Turn the parsed JSON into settings; null means the default, as in `transformers`."""
    given = {key: value for key, value in raw.items() if value is not None}
    try:
        text = _text(given, config.im_end_id)
        vocab_size = config.thinker.decoder.vocab_size
        if not all(0 <= token < vocab_size for token in text.eos_ids):
            raise ValueError(f"eos_token_id {sorted(text.eos_ids)}; there are {vocab_size} tokens")
        codes = _codes(given)
        return GenerationSettings(
            thinker=text,
            talker=SpeechSettings(sampling=codes),
            predictor=replace(RESIDUAL_CODES, do_sample=codes.do_sample),
        )
    except (TypeError, ValueError, RequestError) as error:
        raise CheckpointError(f"generation_config.json: {error}") from error


def _codes(given: Mapping[str, Any]) -> SamplingSettings:
    return SamplingSettings(
        do_sample=bool(given.get("talker_do_sample", CODES.do_sample)),
        temperature=float(given.get("talker_temperature", CODES.temperature)),
        top_k=int(given.get("talker_top_k", CODES.top_k)),
        top_p=float(given.get("talker_top_p", CODES.top_p)),
        repetition_penalty=float(given.get("talker_repetition_penalty", CODES.repetition_penalty)),
    )


def _text(given: Mapping[str, Any], im_end_id: int) -> TextSettings:
    eos = given.get("eos_token_id", im_end_id)
    max_new_tokens = int(given.get("max_new_tokens", 1024))
    min_new_tokens = int(given.get("min_new_tokens", 0))
    if not 0 <= min_new_tokens <= max_new_tokens or max_new_tokens < 1:
        raise ValueError(f"min_new_tokens {min_new_tokens}, max_new_tokens {max_new_tokens}")
    return TextSettings(
        eos_ids=frozenset([eos] if isinstance(eos, int) else map(int, eos)),
        sampling=SamplingSettings(
            do_sample=bool(given.get("do_sample", False)),
            temperature=float(given.get("temperature", 1.0)),
            top_k=int(given.get("top_k", 50)),
            top_p=float(given.get("top_p", 1.0)),
            repetition_penalty=float(given.get("repetition_penalty", 1.0)),
            min_new_tokens=min_new_tokens,
        ),
        max_new_tokens=max_new_tokens,
    )
