"""The check for machines with a GPU: its rehearsal goes through, and its table is its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(400)  # 20 s of work, of which a busy machine makes minutes
def test_a_rehearsal_writes_every_part(tmp_path: Path) -> None:
    tiny = ("--size", "tiny", "--device", "cpu", "--no-tests")
    run("benchmarks.gpu_check", *tiny, "--out", str(tmp_path))
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["failed"] == []
    assert record["is_rehearsal"]
    assert record["commit"] in path.name
    assert record["kernels"]["experts, 1"]["plain_us"] > 0
    assert record["steps"]["plain, graphs off, 1"]["frame_ms"] > 0
    assert record["steps"]["predicted"]["8"]["frame_ms"] > 0
    for engine in ("plain", "by steps"):
        assert record["engine"][engine]["sessions"]["1"]["audio_s_per_s"] > 0
    assert record["profile"][0]["us"] > 0


def test_the_predictions_are_those_of_the_script() -> None:
    kept = (ROOT / "benchmarks" / "predictions.md").read_text(encoding="utf-8")
    assert run("benchmarks.predictions") == kept
