"""One part of the tiny checkpoint: our module with its weights. Found as `oracle.py` is."""

from __future__ import annotations

from typing import TypeVar

from oracle import Oracle
from safetensors.torch import load_file
from torch import nn

from models.weights import fill_weights

Part = TypeVar("Part", bound=nn.Module)


def filled(module: Part, oracle: Oracle, prefix: str) -> Part:
    """`module` (on the meta device) with the oracle's published tensors whose names start so."""
    tensors = {
        name.removeprefix(prefix): tensor
        for path in oracle.folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
        if name.startswith(prefix)
    }
    fill_weights(module, tensors)
    return module
