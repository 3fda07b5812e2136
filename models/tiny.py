"""Write a small random checkpoint in the published format (`omnid checkpoint tiny`).

It loads like a published one, here and in Hugging Face `transformers`, and it talks nonsense:
visible words, one to ten seconds of audible speech, and an end. Its config.json says so
(`omnid_babbles`). The folder appears whole or not at all. Parts: `models.tiny_config`,
`models.tiny_tokenizer`, `models.tiny_weights`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.config import parse_config
from models.errors import CheckpointError, RequestError
from models.tiny_config import GENERATION, PREPROCESSOR, tiny_config
from models.tiny_tokenizer import word_ids, write_tokenizer
from models.tiny_weights import tiny_weights, total_bytes
from models.weights import save_tensors

MAX_SHARD_BYTES = 48 * 2**20  # two shards at the default size: the index is never idle
MAX_FLOAT32_BYTES = 100 * 10**6


def write_tiny_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Write the checkpoint that `seed` and `overrides` determine.

    Args:
        overrides: fields of config.json to replace, at any depth.
        force: replace a checkpoint that is there. Another folder with anything in it is never
        touched.

    Raises:
        CheckpointError: the folder is taken or can not be written, or the overrides do not fit
        together.
        RequestError: no such seed.
    """
    if not 0 <= seed < 2**63:
        raise RequestError(f"a seed lies between 0 and 2**63 - 1; {seed} does not")
    folder = folder.absolute()
    _check_free(folder, force=force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"can not write beside {folder}: {error}") from error
    try:
        _write(made, seed, overrides or {})
        made.chmod(0o755)
        if force and folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)  # fails if another process has filled the folder meanwhile
    except OSError as error:
        raise CheckpointError(f"can not write {folder}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(folder: Path, seed: int, overrides: Mapping[str, Any]) -> None:
    raw = tiny_config(overrides)
    config = parse_config(raw)
    write_tokenizer(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = [i for i in word_ids(tokenizer) if i < config.thinker.decoder.vocab_size]
    tensors = tiny_weights(config, words, seed)
    is_small = total_bytes(tensors) <= MAX_FLOAT32_BYTES
    dtype = torch.float32 if is_small else torch.bfloat16
    raw["dtype"] = raw["thinker_config"]["dtype"] = str(dtype).removeprefix("torch.")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    save_tensors(tensors.items(), shapes, folder, dtype=dtype, max_shard_bytes=MAX_SHARD_BYTES)
    _write_json(folder / "generation_config.json", GENERATION)
    _write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    _write_json(folder / "config.json", raw)


def _check_free(folder: Path, *, force: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    if not _is_ours(folder):
        raise CheckpointError(f"{folder} is not empty and holds no tiny checkpoint")
    if not force:
        raise CheckpointError(f"{folder} holds a checkpoint; --force replaces it")


def _is_ours(folder: Path) -> bool:
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and raw.get("omnid_babbles") is True


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
