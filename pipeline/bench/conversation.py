"""`omnid bench conversation`: made users talk with this pipeline; how much like a person is it?

Deterministic and faster than real time: the user is synthesised with exact ground truth, the engine
is scripted with known delays, nothing runs on the wall clock. It measures turn-taking, barge-in
and bookkeeping, not a model and not a network. Voices and sentences are those that the judges were
not trained on, unless asked otherwise. Needs flite, espeak-ng and festival.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.bench import report
from pipeline.bench.endpoint_sweep import sweep
from pipeline.bench.measure import Tally, measure
from pipeline.bench.picture import draw
from pipeline.bench.scripted_engine import spoken_replies
from pipeline.bench.talk import Recording, Setup, talk
from pipeline.bench.user import User
from pipeline.errors import PipelineError
from pipeline.listening.judges import load_judges
from pipeline.session_config import TurnDetection
from pipeline.synthetic import voices

FIXED = TurnDetection(silence_duration_ms=500)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--conversations", type=int, default=4, metavar="N", help="(default: %(default)s)")
    add("--exchanges", type=int, default=10, metavar="N", help="of each (default: %(default)s)")
    add("--seed", type=int, default=1000, help="of the first user (default: %(default)s)")
    add("--eagerness", choices=("low", "medium", "high", "auto"), default="auto")
    add("--engine-ms", type=float, default=150.0, help="first frame (default: %(default)g)")
    add("--frame-ms", type=float, default=30.0, help="each frame after (default: %(default)g)")
    add("--smart-turn", type=Path, metavar="ONNX", help="judge the end of turns by this network")
    add("--training-voices", action="store_true", help="the voices that the judges know")
    add("--sweep-turns", type=int, default=200, metavar="N", help="0: no sweep of endpointing")
    add("--picture", type=Path, metavar="FILE", help="draw the first conversation (matplotlib)")
    add("--json", metavar="FILE", help="write the figures; - is the standard output")


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    try:
        document = _measure(args)
        text = json.dumps(document, ensure_ascii=False)
        if args.json not in (None, "-"):
            Path(args.json).write_text(text + "\n", encoding="utf-8")
    except (PipelineError, OSError, ImportError) as error:
        print(f"omnid bench conversation: {error}", file=sys.stderr)
        return 1
    shown = report.table(document["setups"], document["endpointing"])
    print(shown, file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json == "-":
        print(text)
    return 0


def setups(eagerness: Any) -> dict[str, TurnDetection]:
    """What is compared, by name."""
    judged = replace(
        FIXED, eagerness=eagerness, tentative_ms=128, speculates=True, judges_interruptions=True
    )
    return {
        "silence 500": FIXED,
        "silence 200": replace(FIXED, silence_duration_ms=200),
        "judged, no speculation": replace(judged, speculates=False),
        "judged": judged,
    }


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    is_held_out = not args.training_voices
    if missing := voices.missing_programs(is_held_out=is_held_out):
        raise voices.SynthesisError(f"not installed: {', '.join(missing)}")
    judges, replies = load_judges(args.smart_turn), spoken_replies()
    summaries: dict[str, Any] = {}
    recording: Recording | None = None
    for name, detection in setups(args.eagerness).items():
        setup = Setup(
            detection=detection,
            judges=judges,
            replies=replies,
            delay_s=args.engine_ms / 1000,
            frame_s=args.frame_ms / 1000,
        )
        tally, recording = Tally(), None
        for seed in range(args.seed, args.seed + args.conversations):
            user = User(seed=seed, num_exchanges=args.exchanges, is_held_out=is_held_out)
            found = asyncio.run(talk(setup, user))
            measure(found, tally)
            recording = recording or found
        summaries[name] = report.figures(tally)
    if args.picture is not None and recording is not None:
        draw(recording, args.picture)
    rows = []
    if args.sweep_turns:
        rows = sweep(
            judges.end_of_turn, num_turns=args.sweep_turns, seed=args.seed, is_held_out=is_held_out
        )
    return {
        "conversations": args.conversations,
        "exchanges": args.exchanges,
        "seed": args.seed,
        "voices": "held out" if is_held_out else "training",
        "engine_ms": args.engine_ms,
        "frame_ms": args.frame_ms,
        "network": None,
        "setups": summaries,
        "endpointing": rows,
    }
