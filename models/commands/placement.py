"""Flags of the commands that load a model: where it lies, and as which numbers. Without torch."""

from __future__ import annotations

import argparse
from typing import get_args

from models.errors import RequestError
from models.placement import STAGES, ExpertWeights, Placement


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--experts",
        choices=get_args(ExpertWeights),
        default="full",
        help="how the thinker's experts are kept: full (in the dtype), int8, fp8 or int4",
    )
    parser.add_argument(
        "--devices",
        default="",
        metavar="STAGE=DEVICE,...",
        help=f"stages on devices of their own, such as talker=cuda:1 ({', '.join(STAGES)})",
    )


def placement_of(args: argparse.Namespace) -> Placement:
    """What the flags say.

    Raises:
        RequestError: --devices can not be read.
    """
    devices = {}
    for part in filter(None, args.devices.split(",")):
        stage, is_there, device = part.partition("=")
        if not is_there:
            raise RequestError(f"--devices {args.devices!r}: give STAGE=DEVICE")
        devices[stage.strip()] = device.strip()
    return Placement(device=args.device, dtype=args.dtype, experts=args.experts, devices=devices)
