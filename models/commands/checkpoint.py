"""`omnid checkpoint`: `verify` asks one whether it works; `tiny` makes a small random one; `train`,
`measure`, `export` and `exam` are the recipe of the embedded model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from models.commands.flags import positive, whole
from models.commands.placement import add_placement, placement_of
from models.commands.verify import verify
from models.devices import format_bytes
from models.hub import resolve_checkpoint
from models.recipe.exam import write_exam
from models.recipe.export import export
from models.recipe.measures import MEASURES, measure
from models.recipe.stages import STAGES, run_stages
from models.tiny import write_tiny_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own commands and their flags."""
    commands = parser.add_subparsers(dest="checkpoint_command", required=True, metavar="COMMAND")
    _add_tiny(commands)
    _add_train(commands)
    _add_measure(commands)
    _add_export(commands)
    _add_exam(commands)
    _add_verify(commands)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code.

    Raises:
        CheckpointError: the folder is taken or can not be written, or a synthesizer is missing.
    """
    return _RUNS[args.checkpoint_command](args)


def _add_tiny(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tiny = commands.add_parser(
        "tiny",
        help="write a small random checkpoint that talks nonsense",
        description="Write a small random checkpoint (about 95 MB) in the published format. "
        "It talks nonsense, and quickly: for tests, and to try everything but the sense.",
    )
    tiny.add_argument("folder", type=Path, metavar="DIR", help="where; made if it is not there")
    tiny.add_argument("--seed", type=int, default=0, help="another seed, other words (default: 0)")
    tiny.add_argument("--force", action="store_true", help="replace a tiny checkpoint in DIR")


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        help="train the embedded model by the recipe, stage by stage",
        description="Run stages of the recipe (models/recipe) on one thread. DIR keeps the data "
        "and what was trained so far. Needs flite and espeak-ng.",
    )
    train.add_argument("folder", type=Path, metavar="DIR", help="the work folder; made if absent")
    train.add_argument("--stage", choices=[*STAGES, "all"], default="all", help="default: all")
    train.add_argument(
        "--minutes",
        type=positive,
        default=60.0,
        help="how long each stage may train (default: 60)",
    )
    train.add_argument(
        "--rate",
        type=positive,
        default=1.0,
        help="share of the usual learning rate; about a third for the last steps (default: 1)",
    )
    begin = train.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on with what is in DIR")
    begin.add_argument(
        "--from",
        dest="begin_with",
        metavar="CHECKPOINT",
        help="begin a new DIR with what a checkpoint of the recipe has learnt, e.g. `embedded`",
    )
    train.add_argument("--seed", type=int, default=0, help="of data and training (default: 0)")


def _add_measure(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    measure_command = commands.add_parser(
        "measure",
        help="say how far a stage of the recipe is",
        description="Figures of one stage of a work folder on held-out sentences.",
    )
    measure_command.add_argument("work", type=Path, metavar="WORK", help="the folder of `train`")
    measure_command.add_argument("--stage", choices=list(MEASURES), required=True)
    measure_command.add_argument(
        "--number",
        type=whole(1),
        default=60,
        metavar="N",
        help="sentences of each kind (default: 60)",
    )


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="write what the recipe has trained as a checkpoint folder",
        description="Write the trained parts of a work folder as a checkpoint in the published "
        "format, at 16 bits.",
    )
    export.add_argument("work", type=Path, metavar="WORK", help="the work folder of `train`")
    export.add_argument("folder", type=Path, metavar="DIR", help="where; made if absent")


def _add_exam(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    exam = commands.add_parser(
        "exam",
        help="write the exam for `omnid bench understanding`",
        description="Write held-out conversations as recordings and pictures, with the right "
        "answers. Needs flite, espeak-ng and festival.",
    )
    exam.add_argument("folder", type=Path, metavar="DIR", help="where; made if absent")
    exam.add_argument("--seed", type=int, default=0, help="another seed, another exam (default: 0)")
    exam.add_argument(
        "--sixties",
        type=whole(1),
        default=1,
        metavar="N",
        help="times 60 conversations, each in four recordings (default: 1)",
    )


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="load a checkpoint, ask it three known questions, and report",
        description="Load a checkpoint and ask it a typed question, a spoken one and one about a "
        "picture. Prints a report to attach to a bug; ends with 1 where anything is wrong.",
    )
    verify.add_argument("model", metavar="DIR|ID", help="checkpoint folder or hub id")
    add_placement(verify)


def _tiny(args: argparse.Namespace) -> int:
    write_tiny_checkpoint(args.folder, seed=args.seed, force=args.force)
    size = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{args.folder}: {format_bytes(size)}, seed {args.seed}. It babbles.")
    return 0


def _train(args: argparse.Namespace) -> int:
    names = list(STAGES) if args.stage == "all" else [args.stage]
    begin_with = None if args.begin_with is None else resolve_checkpoint(args.begin_with)
    run_stages(
        args.folder,
        names,
        seed=args.seed,
        minutes=args.minutes,
        rate=args.rate,
        is_resumed=args.resume,
        begin_with=begin_with,
    )
    return 0


def _export(args: argparse.Namespace) -> int:
    print(f"{args.folder}: {format_bytes(export(args.work, args.folder))}")
    return 0


def _measure(args: argparse.Namespace) -> int:
    for line in measure(args.work, args.stage, args.number):
        print(line, flush=True)
    return 0


def _exam(args: argparse.Namespace) -> int:
    number = write_exam(args.folder, seed=args.seed, num_sixties=args.sixties)
    print(f"{args.folder}: {number} conversations, seed {args.seed}.")
    return 0


def _verify(args: argparse.Namespace) -> int:
    return verify(resolve_checkpoint(args.model), placement_of(args))


_RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "tiny": _tiny,
    "train": _train,
    "measure": _measure,
    "export": _export,
    "exam": _exam,
    "verify": _verify,
}
