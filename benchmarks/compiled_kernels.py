"""Compiles every fused kernel for a GPU, on a machine that needs none: registers, spills, memory.

    python -m benchmarks.compiled_kernels > benchmarks/results/compiled_kernels.md

Whole steps of the published model run on the meta device, where nothing is computed, and each
launch of a kernel ends after its compilation: what is compiled is what the launch sites say. That
shows what the interpreter never does (a kernel that the compiler refuses, a tile that does not fit
the processor) and nothing about time or results. Triton's own cache is left alone, because the
assembler's report on registers and spills comes with a compilation only.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from inspect import BoundArguments
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_steps import CODES, RESIDUALS
from benchmarks.predictions import read_published
from models.config import OmniConfig
from models.graphs import plain
from models.kernels import language
from models.packed_matrices import GROUP
from models.placement import ExpertWeights
from models.qwen3_omni.model import Qwen3Omni
from models.skeleton import skeleton
from models.stepping.operations import FUSED
from models.stepping.pages import PAGE_SIZE, PagePool, PageTable
from models.stepping.speech_slots import SpeechSlots
from models.stepping.speech_step import SpeechStep
from models.stepping.text_step import TextRow, TextStep

META = torch.device("meta")
SESSIONS = (1, 8)
PACKED: tuple[ExpertWeights, ...] = ("int8", "fp8")
GROUPS = (32, GROUP, 128)  # as published checkpoints have them, and ours
MAX_TOKENS = 8192  # of a cache: enough for all splits of attention
CAPABILITY = 90
SHARED_KB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # that one block may have
MAX_REGISTERS = 255  # of a thread; the assembler spills what is beyond
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(slots=True, kw_only=True)
class Compiled:
    """One kernel for one set of constants and dtypes.

    Attributes:
        kernel: module and function. sizes: of its first launch. constants: compiled into it.
        sessions: batches whose steps launch it.
        registers: of a thread. stack_bytes: of a thread, spills included; rare branches of `sin`
            have some of their own.
    """

    kernel: str
    dtype: str
    sizes: str
    constants: str
    registers: int
    stack_bytes: int
    spilled_bytes: int
    shared_bytes: int
    is_fitting: bool
    sessions: list[int] = field(default_factory=list)


def compile_all(
    config: OmniConfig,
    sessions: tuple[int, ...],
    capability: int,
    *,
    has_first: bool,
    groups: tuple[int, ...] = GROUPS,
) -> list[Compiled]:
    """All kernels that steps of so many sessions launch, in order of their names.

    Args:
        has_first: whether to make replies' first frames, too: the vocoder at other lengths.
        groups: columns that share a scale where experts have 4 bits.

    Raises:
        triton.CompilationError: or another of Triton's errors, for a kernel that it refuses.
    """
    made: dict[str, Compiled] = {}
    with torch.inference_mode():
        full = _model(config, "full")
        packed = [_model(config, kind) for kind in PACKED]
        packed += [_model(config, "int4", group) for group in groups]
        for count in sessions:
            with _recorded(made, count, capability):
                for model in (full, *packed):
                    _run_text(model, config, count)
                _run_speech(full, config, count, has_first=has_first)
    return sorted(made.values(), key=lambda compiled: (compiled.kernel, compiled.dtype))


def table(compiled: list[Compiled], capability: int) -> str:
    """A Markdown document; `python -m benchmarks.compiled_kernels` writes it."""
    import triton

    worst = max(compiled, key=lambda one: one.registers)
    bad = [one for one in compiled if one.spilled_bytes or not one.is_fitting]
    lines = [
        f"# The kernels as compiled for compute capability {capability / 10:.1f}",
        "",
        "`python -m benchmarks.compiled_kernels`,"
        f" {datetime.now(UTC):%Y-%m-%d}, Triton {triton.__version__}, on a machine without a GPU."
        " Nothing was run and nothing timed.",
        "",
        "Steps of the published Qwen3-Omni 30B, a text token (experts in bfloat16, int8, fp8 and"
        " int4) and speech frames: bfloat16, the vocoder float32. One row for each compilation;"
        " sizes are those of its first launch, later ones differ in no more than numbers."
        f" A block may have {SHARED_KB[capability]} KB of shared memory, a thread {MAX_REGISTERS}"
        " registers. The stack without spills is a rare branch of `sin`.",
        "",
        f"{len(compiled)} compilations; {len(bad)} spill or do not fit; most registers:"
        f" {worst.registers} ({worst.kernel}).",
        "",
        "| kernel | dtype | sizes | constants | sessions | registers | stack B |"
        " spilled B | shared B | fits |",
        "|---|---|---|---|---|---:|---:|---:|---:|---|",
    ]
    for one in compiled:
        sessions = ", ".join(str(count) for count in one.sessions)
        lines.append(
            f"| {one.kernel} | {one.dtype} | {one.sizes} | {one.constants} | {sessions}"
            f" | {one.registers} | {one.stack_bytes} | {one.spilled_bytes} | {one.shared_bytes}"
            f" | {'yes' if one.is_fitting else 'no'} |"
        )
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------ steps without memory
def _model(config: OmniConfig, experts: ExpertWeights, group: int = GROUP) -> Qwen3Omni:
    model = skeleton(config, dtype=torch.bfloat16, experts=experts, group=group)
    for module in model.modules():
        build = getattr(module, "build_constants", None)
        if build is not None:
            build(META)
    return model.requires_grad_(False).eval()


def _run_text(model: Qwen3Omni, config: OmniConfig, count: int) -> None:
    step = TextStep(model.thinker, _page_table(config.thinker.decoder, count), FUSED, plain)
    step([TextRow(row=row, token=0, length=1, position=1.0) for row in range(1, count + 1)])


def _run_speech(model: Qwen3Omni, config: OmniConfig, count: int, *, has_first: bool) -> None:
    assert config.talker is not None
    assert model.talker is not None
    assert model.code2wav is not None
    pages = _page_table(config.talker.decoder, count)
    slots = SpeechSlots(model.talker, model.code2wav, pages, num_slots=count + 1)
    step = SpeechStep(model, slots, FUSED, plain)
    hidden: Tensor = slots.hidden[0]
    chosen = list(range(1, count + 1))
    for slot in chosen:
        slots.begin(
            slot,
            row=slot,
            settings=(CODES, RESIDUALS),
            seed=slot,
            length=1,
            position=1.0,
            hidden=hidden,
        )
    if has_first:
        step.first(chosen)
    step.next(chosen, [hidden] * count)


def _page_table(decoder: Any, count: int) -> PageTable:
    num_pages = MAX_TOKENS // PAGE_SIZE
    pool = PagePool(decoder, num_pages=1 + count * num_pages, device=META, dtype=torch.bfloat16)
    return PageTable(pool, num_rows=count + 1, max_pages=num_pages)


# ------------------------------------------------------------------ launches that only compile
class _NoDevice:
    """What Triton asks its driver before a launch."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._capability, 32)


@contextmanager
def _recorded(made: dict[str, Compiled], count: int, capability: int) -> Iterator[None]:
    """Until the end, launches compile and go into `made` by the hash of what was compiled."""
    from triton import knobs
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    launch = JITFunction.run

    def record(kernel: Any, *args: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        log = io.StringIO()
        with redirect_stdout(log):
            binary = launch(kernel, *args, grid=grid, warmup=True, **constants)
        if binary.hash not in made:
            bound = kernel.signature.bind(*args, **constants)
            made[binary.hash] = _described(kernel, bound, binary, log.getvalue(), capability)
        if count not in made[binary.hash].sessions:
            made[binary.hash].sessions.append(count)

    driver.set_active(_NoDevice(capability))
    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope(), knobs.nvidia.scope():
        knobs.cache.dir, knobs.nvidia.dump_ptxas_log = folder, True
        JITFunction.run = record
        try:
            yield
        finally:
            JITFunction.run = launch


def _described(
    kernel: Any, bound: BoundArguments, binary: Any, log: str, capability: int
) -> Compiled:
    spills, registers = SPILLS.search(log), REGISTERS.search(log)
    assert spills, f"the assembler said nothing on spills: {log!r}"
    assert registers, f"the assembler said nothing on registers: {log!r}"
    given = bound.arguments
    constants = {one.name: given[one.name] for one in kernel.params if one.is_constexpr}
    sizes = {name: given[name] for name in given if name not in constants}
    tensors = [one for one in given.values() if isinstance(one, Tensor)]
    floats = {str(one.dtype).removeprefix("torch.") for one in tensors if one.is_floating_point()}
    shared = binary.metadata.shared
    return Compiled(
        kernel=f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}",
        dtype=", ".join(sorted(floats)),
        sizes=", ".join(f"{key} {size}" for key, size in sizes.items() if type(size) is int),
        constants=", ".join(_constant(key, value) for key, value in constants.items() if value),
        registers=int(registers[1]),
        stack_bytes=int(spills[1]),
        spilled_bytes=max(int(spills[2]), int(spills[3])),
        shared_bytes=shared,
        is_fitting=shared <= 1024 * SHARED_KB[capability] and int(registers[1]) <= MAX_REGISTERS,
    )


def _constant(name: str, value: object) -> str:
    return name if value is True else f"{name} {value}"


def main() -> None:
    """Print the table, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--capability", type=int, choices=SHARED_KB, default=CAPABILITY)
    parser.add_argument("--sessions", type=int, nargs="+", default=SESSIONS)
    parser.add_argument(
        "--no-first", dest="has_first", action="store_false", help="leave out first frames"
    )
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="of int4 experts")
    parser.add_argument("--json", action="store_true", help="a list of objects for programs")
    args = parser.parse_args()
    if not language.HAS_TRITON or language.is_interpreted():
        parser.error("needs the package triton, and no TRITON_INTERPRET in the environment")
    sessions = tuple(args.sessions)
    compiled = compile_all(
        read_published(),
        sessions,
        args.capability,
        has_first=args.has_first,
        groups=tuple(args.groups),
    )
    if args.json:
        print(json.dumps([asdict(one) for one in compiled]))
    else:
        print(table(compiled, args.capability), end="")


if __name__ == "__main__":
    main()
