"""Types of flags that several commands have: `argparse` tells what is wrong before any work."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path


def positive(text: str) -> float:
    """A number above 0, neither infinite nor none."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return number


def between(least: float, most: float) -> Callable[[str], float]:
    """The type of numbers from `least` to `most`."""

    def number(text: str) -> float:
        found = _number(text)
        if not least <= found <= most:
            wanted = f"a number from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
        return found

    return number


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of whole numbers from `least` on, to `most` where there is a limit."""

    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if found < least or (most is not None and found > most):
            wanted = f"a whole number from {least}" + ("" if most is None else f" to {most}")
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
        return found

    return number


def output_file(text: str) -> str:
    """A file that can be written, or - for the standard output; nothing is written yet."""
    return text if text == "-" else str(written_file(text))


def written_file(text: str) -> Path:
    """A file that can be written; nothing is written yet."""
    path = Path(text)
    if text in ("", "-") or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, not {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can not be written")
    return path


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
