"""`omnid bench engine`: how soon and how fast the engine speaks, beside its floor and the
reference.

Prints the floor first (bytes that a step must read, divided by the memory bandwidth measured here),
then the table, and last one JSON object. The question is spoken noise fed as it would arrive, so
what is measured is the time after its end. Replies are greedy and of a fixed length: no end token
is accepted. Ratios compare within this run on this machine; absolute times mean something on an
idle one only. Of our replies the fastest counts, of the reference's the only one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.commands.bench import FRAME_S, Bench
from models.commands.figures import FEW_TURNS
from models.commands.flags import between, output_file, whole
from models.commands.floor import measure_floor
from models.commands.placement import add_placement, placement_of
from models.config import OmniConfig, parse_config, read_config
from models.devices import pick_device, pick_dtype
from models.encoding import FRAMES_PER_S
from models.engine_options import GRAPHS
from models.errors import RequestError
from models.hub import resolve_checkpoint
from models.loading import load_placed, random_placed
from models.sizes import SIZES
from models.tiny import write_tiny_checkpoint
from models.tiny_config import tiny_config

MAX_SECONDS = 600.0  # of one reply: more than a context holds, or anybody listens to
MAX_SESSIONS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument(
        "--model", default="tiny", help="checkpoint folder, hub id, or random: tiny, small, full"
    )
    parser.add_argument(
        "--against", choices=["transformers"], help="measure the reference, too (slow)"
    )
    parser.add_argument(
        "--seconds",
        type=between(2 * FRAME_S, MAX_SECONDS),
        default=5.0,
        help="length of a reply (5)",
    )
    parser.add_argument(
        "--turns",
        type=whole(1),
        default=50,
        help=f"turns of the long conversation, compared from {2 * FEW_TURNS} on (50)",
    )
    parser.add_argument(
        "--sessions", type=_counts, default=[1], help="sessions at once, such as 1,4,8 (1)"
    )
    parser.add_argument(
        "--window",
        type=whole(1),
        help="attention window of open speech, seconds, at most the checkpoint's own (that one)",
    )
    parser.add_argument(
        "--graphs",
        choices=list(GRAPHS),
        default="auto",
        help="steps of fused kernels in CUDA graphs (auto: where one GPU holds the model)",
    )
    parser.add_argument("--video", action="store_true", help="the questions come with a camera")
    parser.add_argument(
        "--threads",
        type=whole(1, os.cpu_count() or 1),
        default=1,
        help="torch threads on a CPU, at most its cores (1)",
    )
    add_placement(parser)
    parser.add_argument("--work", type=Path, help="where random checkpoints are kept")
    parser.add_argument("--json", metavar="FILE|-", type=output_file, help="write the figures")


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit code: 1 where replies differ from the reference's that may not.

    Raises:
        ModelError: a wrong flag, checkpoint or device; the message says which.
    """
    torch.set_num_threads(args.threads)
    if args.video and args.against is not None:
        raise RequestError("--video has no reference to be measured --against")
    if args.experts != "full" and args.against is not None:
        raise RequestError("the reference has no packed experts to be measured --against")
    if args.model == "full" and args.against is not None:
        raise RequestError("the full size is made in memory: no file for the reference to load")
    folder, bench = _loaded(args)
    floor = measure_floor(bench.model)
    print(floor.describe(), file=sys.stderr)
    report = bench.report(floor, turns=args.turns, counts=args.sessions)
    if args.against is not None:
        from models.commands.against import measure_reference

        report |= measure_reference(bench, folder, report)
    _print_table(report)
    is_right = args.against is None or _tell_equal(report)
    _write(args.json, report)
    return 0 if is_right else 1


def _counts(text: str) -> list[int]:
    number = whole(1, MAX_SESSIONS)
    return [number(word) for word in text.split(",")]


def _loaded(args: argparse.Namespace) -> tuple[Path, Bench]:
    """The checkpoint's folder and its bench. The full size is no file (71 GB): its weights are made
    where they lie, and the tokenizer is the tiny checkpoint's.
    """
    placement = placement_of(args)
    pick_dtype(pick_device(placement.device), placement.dtype)  # refused before anything is made
    wanted = {
        "seconds": args.seconds,
        "window_s": args.window,
        "has_camera": args.video,
        "by_steps": GRAPHS[args.graphs],
    }
    if args.model == "full":
        folder = _folder("tiny", args.work)
        config = parse_config(tiny_config(SIZES["full"]))
        _check_window(args.window, config)
        model = random_placed(config, placement)
    else:
        folder = _folder(args.model, args.work)
        config = read_config(folder)
        if config.talker is None:
            raise RequestError("this checkpoint has no speech to measure")
        _check_window(args.window, config)
        model = load_placed(folder, config, placement)
    return folder, Bench.around(model, config, folder, **wanted)


def _check_window(window_s: int | None, config: OmniConfig) -> None:
    """The encoder would take its own window for a longer one, and the figures would not tell."""
    own_s = config.thinker.audio.n_window_infer / FRAMES_PER_S
    if window_s is not None and window_s > own_s:
        raise RequestError(f"--window {window_s}: the checkpoint's own window is {own_s:g} s")


def _folder(model: str, work: Path | None) -> Path:
    """A checkpoint folder; a random one of a named size is made where it is missing."""
    if model not in SIZES:
        return resolve_checkpoint(model)
    folder = (work or Path("bench-checkpoints")) / model
    if not (folder / "config.json").exists():
        print(f"writing a random checkpoint to {folder}", file=sys.stderr)
        write_tiny_checkpoint(folder, overrides=SIZES[model])
    return folder


def _print_table(report: Mapping[str, Any]) -> None:
    columns = [name for name in ("ours", "transformers", "ratio") if name in report]
    print(f"{'':28}" + "".join(f"{name:>14}" for name in columns), file=sys.stderr)
    for key in report["ours"]:
        cells = (report[name].get(key, "") for name in columns)
        row = "".join(f"{'-' if cell is None else cell:>14}" for cell in cells)
        print(f"{key:28}{row}", file=sys.stderr)
    told = f"ours is the fastest of {report['num_replies']['ours']} replies"
    if "transformers" in report:
        told += f", transformers' of {report['num_replies']['transformers']}"
    print(told, file=sys.stderr)
    for count, figures in report["sessions"].items():
        shown = "  ".join(f"{key} {value}" for key, value in figures.items())
        print(f"{count} at once: {shown}", file=sys.stderr)


def _tell_equal(report: Mapping[str, Any]) -> bool:
    """Say whether the replies are equal; returns whether they are where they must be. Fewer bits
    are rounded at other places, so that is in float32 only.
    """
    different = [name for name, is_equal in report["equal"].items() if not is_equal]
    if not different:
        print("text and codes are the reference's", file=sys.stderr)
        return True
    must_be_equal = report["dtype"] == "float32"
    excuse = "" if must_be_equal else f" (as they may in {report['dtype']})"
    names = " and ".join(different)
    print(f"{names} differ from the reference's{excuse}", file=sys.stderr)
    return not must_be_equal


def _write(target: str | None, report: Mapping[str, Any]) -> None:
    text = json.dumps(report)
    if target is None or target == "-":
        print(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        print(text)  # a disk that is full by now must not cost the figures
        raise RequestError(f"can not write {target}: {error}") from None
