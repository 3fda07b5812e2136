"""The flags of `omnid bench conversation`, and what can be wrong with them before anything runs."""

from __future__ import annotations

import argparse
import importlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.bench import live_grid
from pipeline.errors import PipelineError

USERS, EXCHANGES = 16, 10
MIN_SWEEP_TURNS = 20  # fewer have no pauses to speak of
PICTURES = (".png", ".svg", ".pdf")
# flags that `--live` has no use for, and what they are where they are not given
DEFAULTS: dict[str, Any] = {
    "processes": None,
    "engine_ms": 150.0,
    "frame_ms": 30.0,
    "smart_turn": None,
    "words": "model",  # what people can say to the model that judges
    "reading_ms": 30.0,
    "setup": None,
    "sweep_turns": 200,
}


class UsageError(PipelineError):
    """The flags do not go together, or name a file that can not be written."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser, setups: Sequence[str]) -> None:
    """All flags. setups: names that can be chosen."""
    add, default = parser.add_argument, DEFAULTS
    one = _whole(1)
    add("--users", type=one, metavar="N", help=f"(default: {USERS}; live {live_grid.USERS})")
    add("--exchanges", type=one, metavar="N", help=f"of each ({EXCHANGES}; {live_grid.EXCHANGES})")
    add("--seed", type=int, default=1000, help="of the first user (default: %(default)s)")
    add("--processes", type=one, metavar="N", help="(default: all cores)")
    add("--eagerness", choices=("low", "medium", "high", "auto"), default="auto")
    add(
        "--engine-ms",
        type=_milliseconds,
        metavar="MS",
        help=f"first frame (default: {default['engine_ms']:g})",
    )
    add(
        "--frame-ms",
        type=_milliseconds,
        metavar="MS",
        help=f"each frame after (default: {default['frame_ms']:g})",
    )
    add("--smart-turn", type=Path, metavar="ONNX", help="judge the end of turns by this network")
    add(
        "--words",
        choices=("own", "model"),
        help="whose the sentences are: the bench's, or in words that the embedded model knows "
        f"(default: {default['words']})",
    )
    add(
        "--reading-ms",
        type=_milliseconds,
        metavar="MS",
        help=f"the ear takes; 4 to 18 on a quiet core ({default['reading_ms']:g})",
    )
    add(
        "--setup",
        action="append",
        choices=setups,
        metavar="NAME",
        help=f"only this; may be said again: {', '.join(map(repr, setups))}",
    )
    add("--training-voices", action="store_true", help="the voices that the judges know")
    add(
        "--sweep-turns",
        type=_sweep_turns,
        metavar="N",
        help=f"0: no sweep of endpointing; else at least {MIN_SWEEP_TURNS} "
        f"(default: {default['sweep_turns']})",
    )
    add(
        "--picture",
        type=Path,
        metavar="FILE",
        help=f"draw the first conversation (matplotlib; {', '.join(PICTURES)})",
    )
    add("--json", metavar="FILE", help="write the figures; - is the standard output")
    live_grid.add_arguments(parser)


def settle(args: argparse.Namespace) -> None:
    """Fill in what was not said.

    Raises:
        UsageError: a flag has no meaning in this mode, or a file could not be written at the end.
    """
    foreign = DEFAULTS if args.live else live_grid.DEFAULTS
    for name in foreign:
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} {'has no meaning with' if args.live else 'needs'} --live")
    if args.url is not None and args.model is not None:
        raise UsageError("--model is for the server that is started; --url names one that runs")
    if args.json not in (None, "-"):
        _check_writable("--json", Path(args.json))
    if args.picture is not None:
        _check_picture(args.picture)
    num = (live_grid.USERS, live_grid.EXCHANGES) if args.live else (USERS, EXCHANGES)
    defaults = {
        **DEFAULTS,
        **live_grid.DEFAULTS,
        "processes": os.cpu_count() or 1,
        "users": num[0],
        "exchanges": num[1],
    }
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _check_picture(path: Path) -> None:
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"--picture {path}: its name must end in one of {', '.join(PICTURES)}")
    _check_writable("--picture", path)
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise UsageError(f"--picture needs matplotlib: {error}") from error


def _check_writable(flag: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{flag} {path}: this is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: it can not be written")


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, not {text!r}")
        return found

    return number


def _sweep_turns(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        found = -1
    if found != 0 and found < MIN_SWEEP_TURNS:
        raise argparse.ArgumentTypeError(
            f"must be 0 or a whole number from {MIN_SWEEP_TURNS}, not {text!r}"
        )
    return found


def _milliseconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise argparse.ArgumentTypeError(f"must be a number from 0, not {text!r}")
    return found
