"""Flags of the commands that load a model: where it lies, and as which numbers."""

from __future__ import annotations

import argparse
from typing import get_args

from models.loading import Placement
from models.skeleton import ExpertWeights


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--experts",
        choices=get_args(ExpertWeights),
        default="full",
        help="how the thinker's experts are kept: full (in the dtype), int8 or int4",
    )


def placement_of(args: argparse.Namespace) -> Placement:
    """What the flags say."""
    return Placement(device=args.device, dtype=args.dtype, experts=args.experts)
