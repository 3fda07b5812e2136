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
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.bench import conversation_flags, live_grid, report
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

WORDS = "judged by words"
EAR = "embedded"  # the checkpoint that reads them
OBEYS_WITHIN_S = 1.0
FIXED = TurnDetection(silence_duration_ms=500)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    conversation_flags.add_arguments(parser, tuple(setups("auto")))


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    try:
        conversation_flags.settle(args)
        document, first = _measure(args)
    except (PipelineError, OSError, ImportError) as error:
        return _failed(error)
    text = json.dumps(document, ensure_ascii=False)
    fault: Exception | None = None
    try:
        if args.json not in (None, "-"):
            Path(args.json).write_text(text + "\n", encoding="utf-8")
        if args.picture is not None and first is not None:
            draw(first, args.picture)
    except (OSError, ImportError) as error:
        fault = error
    shown = report.table(document["setups"], document["endpointing"])
    print(shown, file=sys.stderr if args.json == "-" else sys.stdout, flush=True)
    if args.json == "-":
        print(text, flush=True)
    broken = [name for name, figures in document["setups"].items() if figures is None]
    if broken and fault is None:
        fault = PipelineError(f"the calls broke: {', '.join(broken)}")
    return 0 if fault is None else _failed(fault)


def _failed(error: Exception) -> int:
    print(f"omnid bench conversation: {error}", file=sys.stderr)
    return int(getattr(error, "exit_code", 1))


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


def _measure(args: argparse.Namespace) -> tuple[dict[str, Any], Recording | None]:
    """The document, and the conversation to draw, if one is asked for."""
    pool = _pool(args)
    is_held_out = pool.is_held_out
    if missing := voices.missing_programs(is_held_out=is_held_out):
        raise voices.SynthesisError(f"not installed: {', '.join(missing)}")
    if args.live:
        return asyncio.run(live_grid.measure_live(args))
    compared = _compared(args)
    tallies = {name: Tally() for name in compared}
    for count, one_user in enumerate(_all_users(args, range(args.seed, args.seed + args.users)), 1):
        print(f"user {count} of {args.users} has talked", file=sys.stderr, flush=True)
        for name, tally in one_user.items():
            tallies[name].add(tally)
    first = None
    if args.picture is not None:
        first = _talked(args, args.seed, list(compared)[-1])
    rows = []
    if args.sweep_turns:
        rows = sweep(
            load_judges(args.smart_turn).end_of_turn,
            num_turns=args.sweep_turns,
            seed=args.seed,
            pool=pool,
            read=ear_of(EAR).read if any(map(_has_words, compared)) else None,
        )
    document = {
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
    return document, first


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
    context = get_context("spawn")
    pool = ProcessPoolExecutor(args.processes, mp_context=context, initializer=_obey)
    try:
        # Ctrl-C reaches the workers, too, which inherit this and leave it to us to end them
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            found = pool.map(functools.partial(_at_work, one_user), seeds)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield from found
    except BaseException:
        _end(pool)
        raise
    pool.shutdown()


def _end(pool: ProcessPoolExecutor) -> None:
    """End the workers, whatever they do."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + OBEYS_WITHIN_S
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
        worker.kill()


def _obey() -> None:
    """In a worker: told to end, it ends its synthesizer first and leaves no file behind."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _at_work(one_user: Callable[[int], dict[str, Tally]], seed: int) -> dict[str, Tally]:
    """In a worker, which would take what ends it for the error of one user, and go on."""
    try:
        return one_user(seed)
    except SystemExit:
        os._exit(1)


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
