"""The kernels' compilation takes a minute of a core that other tests leave idle: it begins with
them, and who wants its result comes last.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parent.parent.parent
# One session: a size of 1 becomes a constant, which is where the compiler differs the most. First
# frames take the same kernels through the vocoder at other lengths: left out for time.
COMMAND = ("benchmarks.compiled_kernels", "--json", "--sessions", "1", "--no-first")


@dataclass(frozen=True)
class Compilation:
    """A process of `benchmarks.compiled_kernels` and what it prints."""

    process: subprocess.Popen[str]
    printed: IO[str]
    errors: IO[str]

    @classmethod
    def start(cls) -> Compilation:
        """Behind all else on this machine."""
        printed, errors = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        process = subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "-m", *COMMAND, "--groups", "64"],
            cwd=ROOT,
            env=environment,
            stdout=printed,
            stderr=errors,
            text=True,
        )
        return cls(process=process, printed=printed, errors=errors)

    def result(self) -> str:
        """Wait for it; what it printed."""
        code = self.process.wait()
        for file in (self.printed, self.errors):
            file.seek(0)
        printed = self.printed.read()
        assert code == 0, printed + self.errors.read()
        return printed


COMPILATION = pytest.StashKey[Compilation]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable but for those who wait."""
    items.sort(key=_waits)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start it where somebody will want it."""
    if any(map(_waits, session.items)) and not session.config.option.collectonly:
        session.config.stash[COMPILATION] = Compilation.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nobody may want it any more."""
    if (found := config.stash.get(COMPILATION, None)) is not None:
        found.process.kill()
        found.process.wait()
        found.printed.close()
        found.errors.close()


@pytest.fixture
def compilation(pytestconfig: pytest.Config) -> Compilation:
    """The one that was started for this run."""
    return pytestconfig.stash[COMPILATION]


def _waits(item: pytest.Item) -> bool:
    names: Sequence[str] = getattr(item, "fixturenames", ())
    return "compilation" in names
