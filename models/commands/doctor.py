"""`omnid doctor`: what this machine has, what serving would use, and what is missing.

Needs nothing but the standard library, so that it also runs where the packages that it looks for
are not installed (`--model` alone needs torch: it plans that model's memory). What is needed stands
in the package's own metadata (`pyproject.toml`), not here. Ends with 0 if `omnid serve` would work,
and the model fits.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from models.commands.placement import add_placement, placement_of
from models.errors import RequestError

PACKAGE = "omnid"
SERVING_EXTRAS = ("server", "model")
OPTIONAL_EXTRAS = ("bench", "gpu", "dev")
SHOWN_VERSIONS = ("torch", "tokenizers", "safetensors", "aiortc", "av", "onnxruntime", "fastapi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One package that some part needs. `specification` is what pip is given."""

    name: str
    specification: str
    extra: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that is nice to have: any of `names`, from the Debian package `package`."""

    names: tuple[str, ...]
    package: str
    purpose: str


PROGRAMS = (
    Program(
        names=("chromium", "chromium-browser", "google-chrome"),
        package="chromium",
        purpose="tests of the page",
    ),
    Program(names=("flite",), package="flite", purpose="new speech for tests and benchmarks"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument(
        "--model", metavar="DIR", help="would it fit? a checkpoint folder, or tiny, small, full"
    )
    parser.add_argument("--sessions", type=int, default=8, help="conversations at once (8)")
    parser.add_argument("--context", type=int, default=8192, help="tokens of each of them (8192)")
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 0 if serving would work.

    Raises:
        ModelError: a flag names what is not there.
    """
    if args.sessions < 1 or args.context < 1:
        raise RequestError("--sessions and --context must be at least 1")
    requirements = read_requirements()
    _print_versions()
    has_torch = _installed("torch") is not None
    if has_torch:
        _print_devices()
    missing = [r for r in requirements if _installed(r.name) is None]
    needed = [r for r in missing if r.extra is None or r.extra in SERVING_EXTRAS]
    _print_missing("Missing for `omnid serve`", needed)
    for extra in OPTIONAL_EXTRAS:
        optional = [r for r in missing if r.extra == extra]
        _print_missing(f"Not installed: {extra} (optional)", optional)
    _print_programs()
    can_serve = has_torch and not needed
    fits = not has_torch or args.model is None or _print_plan(args)
    print(f"\n`omnid serve` {'would work' if can_serve else 'would not work'} here.")
    return 0 if can_serve and fits else 1


def read_requirements() -> list[Requirement]:
    """All packages that the installed metadata names, those for GPUs only where there is one."""
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return [Requirement(name=PACKAGE, specification="-e .", extra=None)]
    found = [parse_requirement(line) for line in lines]
    has_nvidia = shutil.which("nvidia-smi") is not None
    return [r for r in found if r.extra != "gpu" or has_nvidia]


def parse_requirement(line: str) -> Requirement:
    """`fastapi>=0.115; extra == "server"` -> its parts."""
    specification, _, marker = (part.strip() for part in line.partition(";"))
    name = re.match(r"[\w.-]+", specification)
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
    assert name is not None, line
    return Requirement(name=name[0], specification=specification, extra=extra[1] if extra else None)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _print_versions() -> None:
    print(f"omnid {_installed(PACKAGE) or '(not installed)'}, Python {platform.python_version()}")
    print(f"{platform.system()} {platform.release()}, {platform.machine()}")
    versions = [f"{name} {version}" for name in SHOWN_VERSIONS if (version := _installed(name))]
    print(", ".join(versions))


def _print_devices() -> None:
    from models.devices import describe_devices, format_bytes, pick_device, pick_dtype

    print("\nDevices")
    for device in describe_devices():
        total, free = format_bytes(device.total_bytes), format_bytes(device.free_bytes)
        print(f"  {device.name}: {device.description}; {free} free of {total}")
    chosen = pick_device()
    dtype = str(pick_dtype(chosen)).removeprefix("torch.")
    free = format_bytes(describe_devices()[0].free_bytes)
    print("\nLayout")
    print(f"  thinker, talker and encoders on {chosen} in {dtype}, the vocoder there in float32")
    print(f"  one engine process; weights, caches and activations have {free}")
    if chosen.type == "cpu":
        print("  without an NVIDIA GPU only small checkpoints answer in time, such as those of")
        print("  `omnid checkpoint tiny DIR`")


def _print_plan(args: argparse.Namespace) -> bool:
    from models.commands.memory import print_plan

    placement = placement_of(args)
    return print_plan(
        args.model, placement, num_sessions=args.sessions, context_tokens=args.context
    )


def _print_missing(title: str, missing: Sequence[Requirement]) -> None:
    if missing:
        print(f"\n{title}: {', '.join(r.name for r in missing)}")
        print(f"  {sys.executable} -m pip install {' '.join(map(_quoted, missing))}")


def _quoted(requirement: Requirement) -> str:
    text = requirement.specification
    return text if text == "-e ." else f"'{text}'"


def _print_programs() -> None:
    for program in PROGRAMS:
        if not any(map(shutil.which, program.names)):
            print(f"\nNot installed: {program.names[0]} ({program.purpose}; optional)")
            print(f"  apt-get install {program.package}")
