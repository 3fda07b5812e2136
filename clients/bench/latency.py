"""`omnid bench latency`: speaks to a Realtime server as a person would, and measures what is heard.

The client is real (WebRTC by aiortc, or WebSocket) and runs in its own process; the server may be
any that speaks the Realtime API. It needs the `bench` extra. What is measured, and how:
`clients.bench.measure`.

Exit codes: 0 all turns answered, 1 a turn failed or nothing could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.bench.errors import BenchError
from clients.bench.flags import positive
from clients.bench.impairment import NETWORKS

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from clients.bench.address import Address
    from clients.bench.measure import TurnResult
    from clients.bench.peer import Peer

DEFAULT_URL = "http://127.0.0.1:8765"
PLAIN_WIDTH = 120  # of tables where no terminal says how wide it is
STAGGER_S = 0.37  # sessions do not speak in step, as people do not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--url", default=DEFAULT_URL, help="server, http(s):// or ws(s):// (default: %(default)s)")
    add("--transport", choices=("webrtc", "ws"), default="webrtc", help="(default: %(default)s)")
    add(
        "--audio",
        type=Path,
        nargs="+",
        metavar="WAV",
        help="spoken in turn; 16-bit, any rate (default: a question)",
    )
    add(
        "--network",
        choices=sorted(NETWORKS),
        help="lead the call through a bad one, as `bench network` has them (WebRTC only)",
    )
    add("--camera", type=Path, metavar="FILE", help="picture or video to show as the camera")
    add(
        "--turns",
        type=_count,
        default=5,
        metavar="N",
        help="turns of each session (default: %(default)s)",
    )
    add(
        "--sessions",
        type=_count,
        default=1,
        metavar="N",
        help="at the same time (default: %(default)s)",
    )
    add(
        "--json",
        metavar="FILE",
        help="write the numbers as JSON; - is the last line of the standard output",
    )
    add(
        "--timeout-s",
        type=positive,
        default=30.0,
        metavar="S",
        help="longest wait for a reply (default: %(default)g)",
    )
    add(
        "--silence-ms",
        type=int,
        default=200,
        metavar="MS",
        help="silence that ends a turn (default: %(default)s)",
    )
    add("--model", default="omnid", help="model name to ask for (default: %(default)s)")
    add("--api-key", metavar="KEY", help="if the server wants one")
    add("--insecure", action="store_true", help="accept any TLS certificate")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def run(args: argparse.Namespace) -> int:
    """Runs the command; prints errors as one line on stderr. Returns the exit code."""
    try:
        report = asyncio.run(_measure(args))
        _write(report, args.json)
    except BenchError as error:
        print(f"omnid bench latency: {error}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        print(f"omnid bench latency: {error}; pip install 'omnid[bench]'", file=sys.stderr)
        return BenchError.exit_code
    return 1 if report["summary"]["turns_failed"] else 0


async def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from clients.bench.address import ask_health, parse_address
    from clients.bench.report import build_report, describe_server

    address = parse_address(
        args.url, model=args.model, api_key=args.api_key, is_insecure=args.insecure
    )
    if args.network is not None and args.transport != "webrtc":
        raise BenchError("--network: only a call over WebRTC can be led through one")
    frames = _read_camera(args.camera)
    speeches = _read_speeches(args)
    started_at = datetime.now(UTC)
    health = await ask_health(address)
    sessions, session = await _talk_all(args, address, speeches, frames)
    settings = {
        "transport": args.transport,
        "network": args.network,
        "turns": args.turns,
        "sessions": args.sessions,
        "silence_ms": args.silence_ms,
        "audio": [speech.name for speech in speeches],
        "camera": args.camera.name if args.camera else None,
    }
    server = describe_server(args.url, health, session)
    return build_report(sessions, server=server, settings=settings, started_at=started_at)


async def _talk_all(
    args: argparse.Namespace,
    address: Address,
    speeches: Sequence[Any],
    frames: list[VideoFrame] | None,
) -> tuple[list[list[TurnResult]], dict[str, Any]]:
    """All sessions side by side; also the session object that the first one was given."""
    from clients.bench.talk import Plan, Talk

    plan = Plan(
        speeches=speeches,
        num_turns=args.turns,
        silence_ms=args.silence_ms,
        timeout_s=args.timeout_s,
        frames=frames,
    )
    talks = [Talk(_peer(args, address, frames, seed), plan) for seed in range(args.sessions)]

    async def talk(number: int) -> list[TurnResult]:
        await asyncio.sleep(number * STAGGER_S)
        return await talks[number].run()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(talk(number), name=f"session-{number}")
                for number in range(len(talks))
            ]
    except* BenchError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks], dict(talks[0].session)


def _peer(
    args: argparse.Namespace, address: Address, frames: list[VideoFrame] | None, seed: int
) -> Peer:
    # Imported here: a machine that measures over WebSocket needs no aiortc.
    if args.transport == "ws":
        from clients.bench.websocket_peer import WebSocketPeer

        return WebSocketPeer(address)
    from clients.bench.webrtc_peer import WebRtcPeer

    network = None if args.network is None else NETWORKS[args.network]
    return WebRtcPeer(address, frames, network=network, seed=seed)


def _read_speeches(args: argparse.Namespace) -> list[Any]:
    from clients.bench.speech import default_wav, read_speech

    rate_hz = 24_000 if args.transport == "ws" else 48_000
    return [read_speech(path, rate_hz) for path in args.audio or [default_wav()]]


def _read_camera(path: Path | None) -> list[VideoFrame] | None:
    if path is None:
        return None
    from clients.bench.camera import read_frames

    return read_frames(path)


def _write(report: dict[str, Any], target: str | None) -> None:
    from rich.console import Console

    from clients.bench.report import print_table

    # With `--json -` the standard output holds nothing but the JSON.
    console = Console(stderr=target == "-")
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    print_table(report, console)
    if target is None:
        return
    text = json.dumps(report, ensure_ascii=False)
    if target == "-":
        print(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"--json {target}: {error.strerror}") from error
