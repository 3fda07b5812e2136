"""`omnid checkpoint`: make checkpoints; so far `tiny`, a small random one."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.devices import format_bytes
from models.tiny import write_tiny_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own commands and their flags."""
    commands = parser.add_subparsers(dest="checkpoint_command", required=True, metavar="COMMAND")
    tiny = commands.add_parser(
        "tiny",
        help="write a small random checkpoint that talks nonsense",
        description="Write a small random checkpoint (about 95 MB) in the published format. "
        "It talks nonsense, and quickly: for tests, and to try everything but the sense.",
    )
    tiny.add_argument("folder", type=Path, metavar="DIR", help="where; made if it is not there")
    tiny.add_argument("--seed", type=int, default=0, help="another seed, other words (default: 0)")
    tiny.add_argument("--force", action="store_true", help="replace a tiny checkpoint in DIR")


def run(args: argparse.Namespace) -> int:
    """Write what was asked for; returns the exit code.

    Raises:
        CheckpointError: the folder is taken or can not be written.
    """
    write_tiny_checkpoint(args.folder, seed=args.seed, force=args.force)
    size = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{args.folder}: {format_bytes(size)}, seed {args.seed}. It babbles.")
    return 0
