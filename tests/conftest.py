"""What all tests share: one thread for numerical libraries, and where the fixtures lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch or numpy is imported: two threads on a busy machine are many times slower than one.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

ROOT = Path(__file__).parent.parent

# A run of CI repeats what was seen to pass; new examples are looked for on people's machines.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """By now the tests that need torch have imported it; the others do not pay for it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """`tests/fixtures`: small committed recordings of synthetic speech, 16 kHz, 16 bit, mono."""
    return ROOT / "tests" / "fixtures"
