"""What an engine raised: whether memory ran out, and one line of it for people."""

from __future__ import annotations

import sys
from typing import Any


def is_out_of_memory(error: Exception) -> bool:
    """torch has a class of its own on CUDA, and on the CPU only a sentence."""
    torch: Any = sys.modules.get("torch")
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def one_line(error: Exception) -> str:
    """Its message without line breaks; where it has none, its class."""
    return " ".join(str(error).split()) or type(error).__name__
