"""`omnid bench conversation`: made users talk with this pipeline; how much like a person is it?

Deterministic and faster than real time: the user is synthesised with exact ground truth, the engine
is scripted with known delays, nothing runs on the wall clock. It measures turn-taking, barge-in
and bookkeeping, not a model and not a network. Voices and sentences are those that the judges were
not trained on, unless asked otherwise. Needs flite, espeak-ng and festival. `--live` is
another thing: the same users, but in real time, a network, a server (`pipeline.bench.live_grid`).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline.bench import live_grid, report
from pipeline.bench.ear import ear_of
from pipeline.bench.endpoint_sweep import sweep
from pipeline.bench.measure import Tally, measure
from pipeline.bench.picture import draw
from pipeline.bench.recording import Recording
from pipeline.bench.scripted_engine import spoken_replies
from pipeline.bench.talk import Setup, talk
from pipeline.bench.user import User
from pipeline.errors import PipelineError
from pipeline.listening.judges import load_judges
from pipeline.session_config import TurnDetection
from pipeline.synthetic import sentences, voices
from pipeline.synthetic.sentences import Pool

USERS, EXCHANGES = 16, 10
WORDS = "judged by words"
EAR = "embedded"  # the checkpoint that reads them
FIXED = TurnDetection(silence_duration_ms=500)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--users", type=int, metavar="N", help=f"(default: {USERS}; live {live_grid.USERS})")
    add("--exchanges", type=int, metavar="N", help=f"of each ({EXCHANGES}; {live_grid.EXCHANGES})")
    add("--seed", type=int, default=1000, help="of the first user (default: %(default)s)")
    add("--processes", type=int, default=os.cpu_count(), metavar="N", help="(default: all cores)")
    add("--eagerness", choices=("low", "medium", "high", "auto"), default="auto")
    add("--engine-ms", type=float, default=150.0, help="first frame (default: %(default)g)")
    add("--frame-ms", type=float, default=30.0, help="each frame after (default: %(default)g)")
    add("--smart-turn", type=Path, metavar="ONNX", help="judge the end of turns by this network")
    add(
        "--words",
        choices=("own", "model"),
        default="own",
        help="whose the sentences are: the "
        "bench's, or in words that the embedded model knows (default: %(default)s)",
    )
    add(
        "--reading-ms",
        type=float,
        default=30.0,
        help="the ear takes; 4 to 18 on a quiet core (%(default)g)",
    )
    add("--setup", action="append", metavar="NAME", help="only this; may be said again")
    add("--training-voices", action="store_true", help="the voices that the judges know")
    add("--sweep-turns", type=int, default=200, metavar="N", help="0: no sweep of endpointing")
    add("--picture", type=Path, metavar="FILE", help="draw the first conversation (matplotlib)")
    add("--json", metavar="FILE", help="write the figures; - is the standard output")
    live_grid.add_arguments(parser)


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
        FIXED, eagerness=eagerness, tentative_ms=64, speculates=True, judges_interruptions=True
    )
    return {
        "silence 500": FIXED,
        "silence 200": replace(FIXED, silence_duration_ms=200),
        "judged, no speculation": replace(judged, speculates=False),
        "judged": judged,
        f"{WORDS}, no speculation": replace(judged, speculates=False),
        WORDS: judged,
    }


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    pool = _pool(args)
    is_held_out = pool.is_held_out
    if missing := voices.missing_programs(is_held_out=is_held_out):
        raise voices.SynthesisError(f"not installed: {', '.join(missing)}")
    if args.live:
        return asyncio.run(live_grid.measure_live(args))
    args.users, args.exchanges = args.users or USERS, args.exchanges or EXCHANGES
    compared = _compared(args)
    tallies = {name: Tally() for name in compared}
    for one_user in _all_users(args, range(args.seed, args.seed + args.users)):
        for name, tally in one_user.items():
            tallies[name].add(tally)
    if args.picture is not None:
        draw(_talked(args, args.seed, list(compared)[-1]), args.picture)
    rows = []
    if args.sweep_turns:
        rows = sweep(
            load_judges(args.smart_turn).end_of_turn,
            num_turns=args.sweep_turns,
            seed=args.seed,
            pool=pool,
            read=ear_of(EAR).read if any(map(_has_words, compared)) else None,
        )
    return {
        "users": args.users,
        "exchanges": args.exchanges,
        "seed": args.seed,
        "words": args.words,
        "reading_ms": args.reading_ms,
        "voices": "held out" if is_held_out else "training",
        "engine_ms": args.engine_ms,
        "frame_ms": args.frame_ms,
        "network": None,
        "setups": {name: report.figures(tally) for name, tally in tallies.items()},
        "endpointing": rows,
    }


def _compared(args: argparse.Namespace) -> dict[str, TurnDetection]:
    return {
        name: detection
        for name, detection in setups(args.eagerness).items()
        if args.setup is None or name in args.setup
    }


def _has_words(name: str) -> bool:
    return name.startswith(WORDS)


def _pool(args: argparse.Namespace) -> Pool:
    is_held_out = not args.training_voices
    if args.words == "model":
        return sentences.of_model(is_held_out=is_held_out)
    return sentences.HELD_OUT if is_held_out else sentences.TRAINING


def _all_users(args: argparse.Namespace, seeds: range) -> Iterator[dict[str, Tally]]:
    one_user = functools.partial(_one_user, args)
    if args.processes == 1:
        yield from map(one_user, seeds)
        return
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one_user, seeds)


def _one_user(args: argparse.Namespace, seed: int) -> dict[str, Tally]:
    """What a user found with each setup; all in one process, which keeps what was synthesised."""
    found: dict[str, Tally] = {}
    for name in _compared(args):
        found[name] = Tally()
        measure(_talked(args, seed, name), found[name])
    return found


def _talked(args: argparse.Namespace, seed: int, name: str) -> Recording:
    setup = Setup(
        detection=setups(args.eagerness)[name],
        judges=load_judges(args.smart_turn),
        replies=spoken_replies(),
        delay_s=args.engine_ms / 1000,
        frame_s=args.frame_ms / 1000,
        ear=ear_of(EAR) if _has_words(name) else None,
        reading_s=args.reading_ms / 1000,
    )
    user = User(seed=seed, num_exchanges=args.exchanges, pool=_pool(args))
    return asyncio.run(talk(setup, user))
