"""The `omnid` command: a table of subcommands, each loaded only when it is asked for.

Expected failures (exceptions with an `exit_code`) are one line on standard error; a wrong flag ends
with 2, Ctrl-C with 130.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130
PACKAGES = ("clients", "configs", "daemon", "models", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand: the module that holds `add_arguments(parser)` and `run(args) -> int`."""

    module: str
    summary: str


COMMANDS = {
    "serve": Command(
        module="daemon.server",
        summary="serve the page and the Realtime API",
    ),
    "ask": Command(
        module="models.commands.ask",
        summary="answer one recorded question, without a server",
    ),
    "bench latency": Command(
        module="clients.bench.latency",
        summary="speak to a server and measure how soon it answers",
    ),
    "bench understanding": Command(
        module="clients.bench.understanding",
        summary="examine a server: are its replies right, in words and in sound",
    ),
    "bench engine": Command(
        module="models.commands.bench_engine",
        summary="measure the engine alone, beside its floor and the reference",
    ),
    "bench conversation": Command(
        module="pipeline.bench.conversation",
        summary="let made users talk with this pipeline and measure turn-taking and barge-in",
    ),
    "bench network": Command(
        module="clients.bench.network",
        summary="compare receivers of sound on bad networks",
    ),
    "bench soak": Command(
        module="clients.bench.soak",
        summary="let sessions come and go for long, and see that nothing of them stays",
    ),
    "checkpoint": Command(
        module="models.commands.checkpoint",
        summary="make a checkpoint: a small random one, or one trained by the recipe; examine it",
    ),
    "doctor": Command(
        module="models.commands.doctor",
        summary="show what this machine has, and what is missing",
    ),
}


class _Parser(argparse.ArgumentParser):
    """Errors on one line."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(USAGE_ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `omnid` with these arguments; returns the exit code (argparse exits by itself for
    --help).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # who read our output is gone; what is still buffered must not fail at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)
        if not isinstance(exit_code, int):
            raise
        sys.stderr.write(f"omnid: {' '.join(str(error).split())}\n")
        return exit_code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else USAGE_ERROR
    name = _command_name(arguments)
    if name is None:
        return _unknown(arguments)
    foreign = _foreign_package()
    if foreign is not None:
        sys.stderr.write(f"omnid: {foreign}\n")
        return 1
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"omnid {name}", description=f"{command.summary.capitalize()}.", allow_abbrev=False
    )
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"omnid {name}: the Python package '{error.name}' is missing\n")
        return 1
    module.add_arguments(parser)
    args = parser.parse_args(arguments[len(name.split()) :])
    return int(module.run(args))


def _command_name(arguments: list[str]) -> str | None:
    for num_words in (2, 1):
        name = " ".join(arguments[:num_words])
        if name in COMMANDS:
            return name
    return None


def _unknown(arguments: list[str]) -> int:
    group = [name for name in COMMANDS if name.split()[0] == arguments[0]]
    if group:
        if {"-h", "--help"} & set(arguments):
            print(_help(group))
            return 0
        sys.stderr.write(f"omnid {arguments[0]}: give one of: {', '.join(group)}\n")
    else:
        sys.stderr.write(f"omnid: no command {arguments[0]!r} (see omnid --help)\n")
    return USAGE_ERROR


def _help(names: Sequence[str] = ()) -> str:
    shown = {name: COMMANDS[name] for name in names or COMMANDS}
    width = max(len(name) for name in shown)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in shown.items()]
    return "\n".join(
        [
            "usage: omnid COMMAND [...]",
            "",
            "Talk with a Qwen Omni model by voice and camera.",
            "",
            *lines,
            "",
            "`omnid COMMAND --help` tells what a command takes.",
            "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 ended by Ctrl-C.",
        ]
    )


def _foreign_package() -> str | None:
    """Our packages have general names: what is wrong if one beside us is another project's."""
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        folders = list(spec.submodule_search_locations or []) if spec is not None else []
        if not any(Path(folder).resolve().parent == home for folder in folders):
            where = folders[0] if folders else "nowhere"
            return (
                f"the package '{name}' here is not omnid's (found: {where}); "
                "omnid needs an environment of its own"
            )
    return None


if __name__ == "__main__":
    sys.exit(main())
