"""`omnid bench understanding`: is what a server answers right, in words and in sound?

Speaks the conversations of an exam to a running server and marks the replies: their words against
the right ones, their sound by an independent recogniser that hears which of all right replies it
is. By voices that the embedded model was trained with and by others, clean and in noise. It needs
the `bench` extra. Without `--exam` one is written first, by `omnid checkpoint exam`; with
`--words-only` no sound is asked for or marked.

Exit codes: 0 the exam was held, 1 a conversation failed or nothing could be measured, 130 ended by
Ctrl-C. Marks that there are when it ends are told, whatever ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clients.bench.errors import BenchError
from clients.bench.flags import positive

if TYPE_CHECKING:
    from clients.bench.address import Address
    from clients.bench.exam import Exam
    from clients.bench.marks import Mark

DEFAULT_URL = "http://127.0.0.1:8765"
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--url", default=DEFAULT_URL, help="server, http(s):// or ws(s):// (default: %(default)s)")
    add("--exam", type=Path, metavar="DIR", help="what `omnid checkpoint exam` wrote")
    add("--seed", type=int, help="of an exam that is written now (default: 0)")
    only = "conversations whose name contains TEXT; --only=-unseen-clean where it begins with -"
    add("--only", metavar="TEXT", default="", help=only)
    add("--json", metavar="FILE", help="write all marks as JSON; - is the standard output")
    add("--words-only", action="store_true", help="ask for no sound: several times as quick")
    add("--timeout-s", type=positive, default=30.0, metavar="S", help="longest wait for a reply")
    add("--model", default="omnid", help="model name to ask for (default: %(default)s)")
    add("--api-key", metavar="KEY", help="if the server wants one")
    add("--insecure", action="store_true", help="accept any TLS certificate")


def run(args: argparse.Namespace) -> int:
    """Runs the command; prints errors as one line on stderr. Returns the exit code."""
    try:
        if args.json not in (None, "-"):
            _write(args.json, "", mode="a")  # an exam is long: told before it if that is refused
        if args.exam is not None:
            if args.seed is not None:
                raise BenchError("--seed is of an exam that is written now; --exam names another")
            return _hold(args, args.exam)
        asyncio.run(_reach(args))  # what takes minutes is not begun in vain
        with tempfile.TemporaryDirectory() as scratch:
            _write_exam(Path(scratch), args.seed or 0)
            return _hold(args, Path(scratch))
    except BenchError as error:
        print(f"omnid bench understanding: {error}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        print(f"omnid bench understanding: {error}; pip install 'omnid[bench]'", file=sys.stderr)
        return BenchError.exit_code


def _write_exam(folder: Path, seed: int) -> None:
    """By the command: benchmarks know nothing of models."""
    print("Writing the exam (some minutes); --exam DIR takes one that is there.", file=sys.stderr)
    command = [sys.executable, "-m", "daemon", "checkpoint", "exam", str(folder)]
    done = subprocess.run([*command, "--seed", str(seed)], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise BenchError("the exam could not be written")


def _hold(args: argparse.Namespace, folder: Path) -> int:
    from clients.bench.exam import read_exam
    from clients.bench.marks import summarize

    exam = read_exam(folder)
    marks: list[Mark] = []
    exit_code: int | None = None
    try:
        asyncio.run(_examine_all(args, exam, marks))
    except (KeyboardInterrupt, BenchError) as why:
        if not marks:
            raise
        exit_code = why.exit_code if isinstance(why, BenchError) else INTERRUPTED
        told = f": {why}" if isinstance(why, BenchError) else ""
        print(f"ended after {len(marks)} conversations{told}", file=sys.stderr)
    report: dict[str, Any] = {
        "summary": summarize(marks),
        "recogniser": None if args.words_only else _recogniser(exam),
        "seed": exam.seed,
        "was_ended": exit_code is not None,
        "marks": [mark.as_json() for mark in marks],
    }
    _tell(report, args.json)
    if exit_code is not None:
        return exit_code
    return 1 if any(mark.failure for mark in marks) else 0


async def _reach(args: argparse.Namespace) -> None:
    """Is the server there, and what marks the sound?"""
    from clients.bench.websocket_peer import open_socket

    if not args.words_only:
        import pocketsphinx  # type: ignore[import-untyped]  # noqa: F401
    socket = await open_socket(_address(args))
    await socket.close()


def _address(args: argparse.Namespace) -> Address:
    from clients.bench.address import parse_address

    return parse_address(
        args.url, model=args.model, api_key=args.api_key, is_insecure=args.insecure
    )


async def _examine_all(args: argparse.Namespace, exam: Exam, marks: list[Mark]) -> None:
    """One conversation after the other; each one's mark is added as it is known."""
    from clients.bench.examinee import examine
    from clients.bench.judge import Judge
    from clients.bench.marks import marked

    address = _address(args)
    items = [item for item in exam.items if args.only in item.name]
    if not items:
        raise BenchError(f"no conversation of the exam is called {args.only}")
    judge = None if args.words_only else Judge(exam.originals)
    for item in _counted(items):
        answers = await examine(
            address, item, exam.tools, args.timeout_s, has_sound=not args.words_only
        )
        marks.append(marked(item, answers, judge))


def _counted(items: list[Any]) -> Iterable[Any]:
    """With a line about how far it is, where somebody looks on."""
    for number, item in enumerate(items, start=1):
        if sys.stderr.isatty():
            print(f"\r{number} of {len(items)} ", end="", file=sys.stderr, flush=True)
        yield item
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _recogniser(exam: Exam) -> dict[str, Any]:
    """How well the recogniser hears the right replies by the voice that the model learnt from."""
    from clients.bench.exam import plain
    from clients.bench.judge import RATE_HZ, Judge
    from clients.bench.speech import read_sound

    judge = Judge(exam.originals)
    known = [(text, path) for text, path in exam.originals.items() if plain(text) in judge.texts]
    right = sum(
        judge.heard(read_sound(path, RATE_HZ), RATE_HZ) == plain(text) for text, path in known
    )
    return {"choices": len(judge.texts), "accuracy": round(right / len(known), 3)}


def _tell(report: dict[str, Any], target: str | None) -> None:
    from rich.console import Console

    from clients.bench.marks import print_marks

    # With `--json -` the standard output holds nothing but the JSON.
    print_marks(report, Console(stderr=target == "-"))
    text = json.dumps(report, ensure_ascii=False)
    if target == "-":
        print(text)
    elif target is not None:
        _write(target, text + "\n")


def _write(target: str, text: str, mode: Literal["a", "w"] = "w") -> None:
    try:
        with Path(target).open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BenchError(f"--json {target}: {error.strerror}") from error
