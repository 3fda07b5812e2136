"""Every fused kernel compiles for a GPU, which needs none: no spills, and a block fits."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).parent.parent.parent


class Compilation(Protocol):
    """`conftest.Compilation`, which no import finds."""

    def result(self) -> str: ...


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
def test_all_kernels_compile_and_fit(compilation: Compilation) -> None:
    triton = pytest.importorskip("triton")
    try:
        assert triton.knobs.nvidia.ptxas_blackwell.path
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"needs the assembler that Triton's wheels bring: {error}")
    compiled = json.loads(compilation.result())
    assert [one for one in compiled if one["spilled_bytes"] or not one["is_fitting"]] == []
    assert {one["dtype"] for one in compiled if "gated_mlp" in one["kernel"]} == {
        "bfloat16",
        "float32",
    }
    known = jitted()
    seen = {one["kernel"] for one in compiled}
    seen |= {called for kernel in seen for called in known[kernel] & known.keys()}
    assert seen == known.keys()
