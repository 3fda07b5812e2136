"""The check for machines with a GPU: its rehearsal goes through, and its table is its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent.parent
TINY = ("benchmarks.gpu_check", "--size", "tiny", "--device", "cpu", "--no-tests")
# Two kernels in Triton's interpreter, behind a context that it is done with soon.
INTERPRETED = """
import json, torch
from benchmarks import gpu_kernels
from models.config import parse_config
from models.tiny_config import tiny_config
gpu_kernels.BATCHES, gpu_kernels.REPEATS, gpu_kernels.COLD_BYTES = (2,), 1, 4
gpu_kernels.CONTEXT_TOKENS, gpu_kernels.UNIT_TOKENS = 128, 64
every = gpu_kernels._cases
names = ("rotary cache", "routing")
gpu_kernels._cases = lambda *given: [case for case in every(*given) if case[0] in names]
cpu = torch.device("cpu")
made = gpu_kernels.time_kernels(parse_config(tiny_config({})), cpu, 1e9, is_short=False)
print(json.dumps(made))
"""


def done(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run(*arguments: str) -> str:
    ended = done("-m", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.gpu_check")


@pytest.fixture
def gpu_kernels(gpu_check: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.gpu_kernels")


@pytest.mark.timeout(400)  # 20 s of work, of which a busy machine makes minutes
def test_a_rehearsal_writes_every_part(tmp_path: Path) -> None:
    printed = run(*TINY, "--out", str(tmp_path))
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["failed"] == []
    assert record["is_rehearsal"]
    assert record["commit"] in path.name
    assert {"rotary cache, 1", "routing, 1"} < record["kernels"].keys()
    kernel = record["kernels"]["experts, 1"]
    assert kernel["plain_us"] > 0
    floor_us = kernel["bytes"] / record["gb_per_s"] / 1e3
    assert kernel["floor_us"] == pytest.approx(floor_us, rel=0.1, abs=0.01)
    assert f"  experts, 1: plain_us {kernel['plain_us']}, floor_us {kernel['floor_us']}" in printed
    assert record["steps"]["plain, graphs off, 1"]["frame_ms"] > 0
    assert record["steps"]["predicted"]["8"]["frame_ms"] > 0
    for engine in ("plain", "by steps"):
        assert record["engine"][engine]["sessions"]["1"]["audio_s_per_s"] > 0
    assert record["profile"][0]["us"] > 0


@pytest.mark.parametrize(
    "arguments",
    [("--device", "cuda:0"), ("--device", "cuda:0", "--size", "tiny"), ("--device", "cpu")],
)
def test_without_a_gpu_one_line_tells(
    arguments: tuple[str, ...],
    gpu_check: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments, "--out", str(out)])
    assert gpu_check.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "GPU" in line
    assert line.endswith("; `--size tiny --device cpu` is a rehearsal without one")
    assert not out.exists()


def test_a_folder_that_can_not_be_written_is_told_before_the_work(
    gpu_check: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(sys, "argv", ["gpu_check", *TINY[1:], "--out", str(file / "inside")])
    assert gpu_check.main() == 2
    assert capsys.readouterr().err == f"gpu_check: --out {file}/inside: Not a directory\n"


@pytest.mark.timeout(400)
def test_kernels_of_several_results_are_held_against_their_plain_paths() -> None:
    """Queries and both caches; experts and their weights."""
    pytest.importorskip("triton")
    ended = done("-c", INTERPRETED, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 0, ended.stderr
    made = json.loads(ended.stdout.splitlines()[-1])
    assert set(made) == {"rotary cache, 2", "routing, 2"}
    for figures in made.values():
        assert "failure" not in figures
        assert figures["error"] < 1e-3
        assert figures["fused_us"] > 0
        assert figures["floor_us"] == pytest.approx(figures["bytes"] / 1e3, abs=0.01)


def test_a_kernel_that_is_wrong_or_fails_leaves_the_others_their_figures(
    gpu_kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Tensor:
        raise RuntimeError("no such instruction")

    ones = torch.ones(4)
    cases = [
        ("wrong", lambda: 1.1 * ones, lambda: ones, (), 8),
        ("no number", lambda: (ones, 0 * ones / 0), lambda: (ones, ones), (), 8),
        ("broken", broken, lambda: ones, (), 8),
        ("right", lambda: ones, lambda: ones, (), 8),
    ]
    monkeypatch.setattr(gpu_kernels, "_cases", lambda *given: cases)
    monkeypatch.setattr(gpu_kernels, "BATCHES", (1,))
    monkeypatch.setattr(gpu_kernels, "COLD_BYTES", 4)
    monkeypatch.setattr(gpu_kernels.language, "can_run", lambda device: True)
    made = gpu_kernels.time_kernels(None, torch.device("cpu"), 1e6, is_short=False)
    failures = {name: figures.get("failure") for name, figures in made.items()}
    assert failures == {
        "wrong, 1": "an error of 0.1, 0.03 is allowed",
        "no number, 1": "an error of nan, 0.03 is allowed",
        "broken, 1": "RuntimeError: no such instruction",
        "right, 1": None,
    }
    assert all(figures["floor_us"] == 8.0 for figures in made.values())
    assert all(made[name]["plain_us"] > 0 for name in ("wrong, 1", "broken, 1", "right, 1"))


@pytest.mark.parametrize("failure", [{}, {"failure": "an error of 0.1"}])
def test_the_part_fails_where_a_kernel_does(
    failure: dict[str, str], gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"experts, 1": {"plain_us": 1.0}, "routing, 1": {"plain_us": 2.0, **failure}}
    monkeypatch.setattr(gpu_check, "measure_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(gpu_check, "time_kernels", lambda *given, is_short: made)
    check = gpu_check.Check(None, torch.device("cpu"), is_rehearsal=True)
    check.part("kernels", check.kernels)
    assert check.record["kernels"] == made
    assert check.failed == (["kernels"] if failure else [])


def test_the_predictions_are_those_of_the_script() -> None:
    kept = (ROOT / "benchmarks" / "predictions.md").read_text(encoding="utf-8")
    assert run("benchmarks.predictions") == kept
