"""Which program this is: its version, the commit of the source tree that it runs from, the machine.

Told by /healthz, so that a measurement can say what it saw.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIT_TIMEOUT_S = 5


@functools.cache
def about() -> dict[str, str | None]:
    """`version`, `commit` and `machine`; None for what is not known."""
    return {
        "version": _version(),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version() -> str | None:
    try:
        return version("omnid")
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """None outside of a source tree of our own (`.git` beside the packages), or without git."""
    tree = Path(__file__).resolve().parents[1]
    if not (tree / ".git").exists():
        return None
    command = ["git", "-C", str(tree), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
