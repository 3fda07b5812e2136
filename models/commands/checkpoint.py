"""`omnid checkpoint`: make checkpoints: `tiny`, a small random one, and `train`, by the recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.devices import format_bytes
from models.recipe.stages import STAGES, run_stages
from models.tiny import write_tiny_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own commands and their flags."""
    commands = parser.add_subparsers(dest="checkpoint_command", required=True, metavar="COMMAND")
    _add_tiny(commands)
    _add_train(commands)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code.

    Raises:
        CheckpointError: the folder is taken or can not be written, or a synthesizer is missing.
    """
    return _train(args) if args.checkpoint_command == "train" else _tiny(args)


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
        "--minutes", type=float, default=60.0, help="how long each stage may train (default: 60)"
    )
    train.add_argument("--resume", action="store_true", help="go on with what is in DIR")
    train.add_argument("--seed", type=int, default=0, help="of data and training (default: 0)")


def _tiny(args: argparse.Namespace) -> int:
    write_tiny_checkpoint(args.folder, seed=args.seed, force=args.force)
    size = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{args.folder}: {format_bytes(size)}, seed {args.seed}. It babbles.")
    return 0


def _train(args: argparse.Namespace) -> int:
    names = list(STAGES) if args.stage == "all" else [args.stage]
    run_stages(args.folder, names, seed=args.seed, minutes=args.minutes, is_resumed=args.resume)
    return 0
