"""Types of flags that several benchmarks have."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> float:
    """A number above 0, neither infinite nor none; else `argparse` tells what is wrong."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return number
