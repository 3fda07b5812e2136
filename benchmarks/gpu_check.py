"""Everything that only a GPU can tell, in one run meant to take under ten minutes.

    pip install -e ".[model,bench,dev,gpu]"
    python -m benchmarks.gpu_check

Tests marked `gpu` and the kernels' parity first; then each kernel's time beside its floor (its
bytes at the bandwidth measured here), whole steps of the published model's size with random weights
made on the device (graphs on and off, 1, 8 and 32 sessions), the engine's own bench on them, by
steps with paged caches and plainly, and a profile. Needs a card of 80 GB. Writes one JSON file
under `benchmarks/results`; a part that fails is reported there and the others go on. Ends with 0,
with 1 where a part or a kernel failed, with 2 where it can not begin.
`--size tiny --device cpu` is a rehearsal that measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_kernels import time_kernels
from benchmarks.gpu_steps import CONTEXT_TOKENS, StepBench
from benchmarks.predictions import predict, read_published
from models.chat import ChatFormat
from models.commands.bench import Bench
from models.commands.floor import measure_bandwidth
from models.config import OmniConfig, parse_config
from models.devices import pick_device
from models.errors import ResourceError
from models.generation import read_generation
from models.kernels import language
from models.qwen3_omni.model import Qwen3Omni
from models.random_weights import random_model
from models.stepping.operations import PLAIN, pick_operations
from models.tiny import write_tiny_checkpoint
from models.tiny_config import tiny_config

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SESSIONS = (1, 8, 32)
BUDGET_S = 570.0
TEST_LIMIT_S = 240.0
REHEARSAL = "`--size tiny --device cpu` is a rehearsal without one"
MAX_CONTEXT_TOKENS = 1024  # of a session of the engine's bench; a question and a reply are fewer


def main() -> int:
    """Run all parts; returns the exit code."""
    args = _arguments()
    torch.set_num_threads(1)
    refusal = _refusal(args)
    if refusal is not None:
        print(f"gpu_check: {refusal}", file=sys.stderr)
        return 2
    device = pick_device(args.device)
    config = read_published() if args.size == "full" else parse_config(tiny_config({}))
    check = Check(config, device, is_rehearsal=args.size == "tiny")
    check.part("tests", lambda: check.tests() if args.tests else "left out")
    check.part("kernels", check.kernels)
    with torch.inference_mode():
        check.part("steps", check.steps)
        check.part("profile", check.profile)
    check.part("engine", check.engine)
    path = check.write(args.out)
    print(f"written: {path}")
    return 1 if check.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--no-tests", dest="tests", action="store_false")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    return parser.parse_args()


def _refusal(args: argparse.Namespace) -> str | None:
    """Why nothing can begin; None where it can."""
    try:
        device = pick_device(args.device)
    except ResourceError as error:
        return f"{error}. A GPU is needed; {REHEARSAL}"
    if device.type == "cpu" and args.size == "full":
        return f"the full size needs a GPU; {REHEARSAL}"
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        return f"--out {args.out}: {error.strerror}"
    return None


class Check:
    """The record of one run."""

    def __init__(self, config: OmniConfig, device: torch.device, *, is_rehearsal: bool) -> None:
        self.config, self.device, self.is_rehearsal = config, device, is_rehearsal
        self.started = time.monotonic()
        self.failed: list[str] = []
        self.record: dict[str, Any] = {"is_rehearsal": is_rehearsal, **_machine(device)}
        self._model: Qwen3Omni | None = None

    @property
    def model(self) -> Qwen3Omni:
        """Random weights of the config's size, made once."""
        if self._model is None:
            dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
            self._model = random_model(self.config, device=self.device, dtype=dtype)
        return self._model

    def part(self, name: str, run: Callable[[], Any]) -> None:
        """One part of the check: its result or its error goes into the record."""
        started = time.monotonic()
        if started - self.started > BUDGET_S:
            self.record[name] = {"error": "no time was left"}
            self.failed.append(name)
            return
        try:
            self.record[name] = run()
        except Exception as error:  # the report of a failing part is what this program is for
            traceback.print_exc()
            self.record[name] = {"error": f"{type(error).__name__}: {error}"}
            self.failed.append(name)
        took = time.monotonic() - started
        self.record.setdefault("part_s", {})[name] = round(took, 1)
        print(f"{name}: {'failed' if name in self.failed else 'done'}, {took:.0f} s", flush=True)

    # ------------------------------------------------------------------ parts
    def tests(self) -> str:
        """Tests marked `gpu` and the kernels' parity; returns pytest's last line."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        targets = ["tests/models/test_gpu.py", "tests/models/kernels", "tests/models/stepping"]
        done = subprocess.run(
            [*command, *targets],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TEST_LIMIT_S,
            check=False,
        )
        if done.returncode:
            print(done.stdout[-8000:])
            raise RuntimeError(done.stdout.strip().splitlines()[-1])
        return done.stdout.strip().splitlines()[-1]

    def kernels(self) -> dict[str, Any]:
        """Each kernel alone; the part fails where one of them does."""
        bytes_per_s = measure_bandwidth(self.device)
        self.record["gb_per_s"] = round(bytes_per_s / 1e9, 1)
        is_short = self.is_rehearsal
        made = time_kernels(self.config, self.device, bytes_per_s, is_short=is_short)
        if any("failure" in figures for figures in made.values()):
            self.failed.append("kernels")
        return made

    def steps(self) -> dict[str, Any]:
        """Whole steps, beside the predicted floors."""
        made: dict[str, Any] = {}
        for kernels in dict.fromkeys((PLAIN, pick_operations(self.device))):
            for graphs in ("off", "auto"):
                bench = StepBench(self.model, self.config, kernels, graphs, max(SESSIONS))
                for count in SESSIONS[: 1 if self.is_rehearsal else None]:
                    figures = bench.measure(count, 2 if self.is_rehearsal else 30)
                    made[f"{kernels.name}, graphs {graphs}, {count}"] = figures
                del bench  # the next one's caches fit beside the weights only in its place
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
        made["predicted"] = {str(count): self._predicted(count) for count in SESSIONS}
        return made

    def _predicted(self, count: int) -> dict[str, float]:
        kernels = predict(self.config, count, CONTEXT_TOKENS)
        text = [kernel for kernel in kernels if kernel.stage == "thinker token"]
        frame = [kernel for kernel in kernels if kernel.stage != "thinker token"]
        return {
            "token_ms": round(1e3 * sum(kernel.predicted_s for kernel in text), 3),
            "frame_ms": round(1e3 * sum(kernel.predicted_s for kernel in frame), 3),
            "frame_floor_ms": round(1e3 * sum(kernel.floor_s for kernel in frame), 3),
        }

    def profile(self) -> list[dict[str, Any]]:
        """The dearest device operations of one speech frame without a graph."""
        bench = StepBench(self.model, self.config, pick_operations(self.device), "off", 1)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        bench.measure(1, 1)
        with torch.profiler.profile(activities=activities) as profile:
            bench.measure(1, 1)
        key = "self_device_time_total" if len(activities) > 1 else "self_cpu_time_total"
        rows = sorted(profile.key_averages(), key=lambda row: -getattr(row, key))[:25]
        return [
            {"name": row.key[:80], "us": round(getattr(row, key), 1), "calls": row.count}
            for row in rows
        ]

    def engine(self) -> dict[str, Any]:
        """`bench engine` on the random model, with the tiny checkpoint's tokenizer."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "tiny"
            write_tiny_checkpoint(folder)
            return {
                "by steps" if by_steps else "plain": self._engine(folder, by_steps=by_steps)
                for by_steps in (True, False)
            }

    def _engine(self, folder: Path, *, by_steps: bool) -> dict[str, Any]:
        gc.collect()  # an engine before this one, and its pages
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        started = time.perf_counter()
        bench = Bench(
            model=self.model,
            config=self.config,
            chat=ChatFormat.load(folder, self.config),
            generation=read_generation(folder, self.config),
            folder=folder,
            seconds=0.32 if self.is_rehearsal else 2.0,
            by_steps=by_steps,
            max_context_tokens=MAX_CONTEXT_TOKENS,
        )
        prepare_s = time.perf_counter() - started
        bench.one_reply(bench.num_tokens)
        reply = bench.one_reply(bench.num_tokens)
        counts = SESSIONS[: 1 if self.is_rehearsal else None]
        return {
            "prepare_s": round(prepare_s, 1),
            "first_audio_ms": round(reply.first_audio_ms, 2),
            "frame_ms": round(reply.frame_ms, 3),
            "rtf": round(reply.rtf, 4),
            "sessions": {str(count): bench.together(count) for count in counts},
        }

    def write(self, folder: Path) -> Path:
        """The record as one JSON file."""
        self.record["took_s"] = round(time.monotonic() - self.started, 1)
        self.record["failed"] = self.failed
        folder.mkdir(parents=True, exist_ok=True)
        stamp = self.record["date"][:16].replace(":", "")
        path = folder / f"gpu-check-{stamp}-{self.record['commit']}.json"
        path.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        return path


def _machine(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _output("git", "rev-parse", "--short", "HEAD") or "unknown",
        "is_changed": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": language.triton.__version__ if language.HAS_TRITON else None,
        "device": str(device),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["device"] = properties.name
        facts["memory_bytes"] = properties.total_memory
        query = ("--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv")
        facts["nvidia_smi"] = _output("nvidia-smi", *query)
    return facts


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
