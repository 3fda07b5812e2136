"""Every fused kernel compiles for a GPU, which needs none: no spills, and a block fits."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def jitted() -> dict[str, set[str]]:
    """Each function marked `jit` in `models.kernels`, and those that it calls."""
    made: dict[str, set[str]] = {}
    for path in sorted((ROOT / "models" / "kernels").glob("*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(mark, ast.Name) and mark.id == "jit" for mark in function.decorator_list
            ):
                calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                named = {call.id for call in calls if isinstance(call, ast.Name)}
                made[f"{path.stem}.{function.name}"] = {f"{path.stem}.{name}" for name in named}
    return made


@pytest.mark.timeout(600)  # under a minute of work, of which a busy machine makes six
def test_all_kernels_compile_and_fit() -> None:
    triton = pytest.importorskip("triton")
    try:
        assert triton.knobs.nvidia.ptxas_blackwell.path
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"needs the assembler that Triton's wheels bring: {error}")
    # One session: a size of 1 becomes a constant, which is where the compiler differs the most.
    # First frames take the same kernels through the vocoder at other lengths: left out for time.
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.compiled_kernels",
            "--json",
            "--sessions",
            "1",
            "--no-first",
            *("--groups", "64"),
        ],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compiled = json.loads(done.stdout)
    assert [one for one in compiled if one["spilled_bytes"] or not one["is_fitting"]] == []
    assert {one["dtype"] for one in compiled if "gated_mlp" in one["kernel"]} == {
        "bfloat16",
        "float32",
    }
    known = jitted()
    seen = {one["kernel"] for one in compiled}
    seen |= {called for kernel in seen for called in known[kernel] & known.keys()}
    assert seen == known.keys()
