"""`omnid bench soak`: sessions come and go for long, and nothing of them may stay.

Starts a server of its own on a free port, lets users talk, interrupt, leave and drop out over both
transports, and compares what the server holds before and after, both times without a session. The
first look is taken after a warm-up, when all that is loaded lazily is there. The report is one JSON
object; the command fails when something grew or nothing could be talked about.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.bench.errors import BenchError
from clients.bench.flags import positive
from clients.bench.footprint import Footprint, gauge, growth, look

if TYPE_CHECKING:
    from clients.bench.address import Address
    from clients.bench.peer import Peer

QUIET_S = 120.0  # users that dropped out may come back for a while: so long their sessions stay
SETTLE_S = 3.0
TRANSPORTS = ("webrtc", "ws")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--minutes", type=positive, default=30.0, help="of talking (default: %(default)s)")
    add("--warm-up", type=float, default=1.0, metavar="MINUTES", help="before the first look (1)")
    add("--sessions", type=int, default=4, help="side by side (default: %(default)s)")
    add("--model", metavar="DIR|HUB-ID", help="checkpoint to serve (the server's default)")
    add("--audio", type=Path, metavar="WAV", help="what is said (the built-in question)")
    add("--transport", choices=("both", *TRANSPORTS), default="both", help="(default: both)")
    add("--seed", type=int, default=1, help="of all choices (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Soak; 1 when something grew or no turn was held.

    Raises:
        BenchError: the server does not start, or ends by itself.
    """
    report = asyncio.run(_soak(args))
    print(json.dumps(report))
    for line in report["grew"]:
        print(f"omnid bench soak: grew: {line}", file=sys.stderr)
    return 1 if report["grew"] or not report["counts"].get("turns") else 0


async def _soak(args: argparse.Namespace) -> dict[str, Any]:
    from clients.bench.own_server import own_server

    async with own_server(args.model) as (pid, address):
        warm_up: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        await _talk(args, address, args.warm_up, warm_up, args.seed)
        before = await _quiet(pid, address)
        await _talk(args, address, args.minutes, counts, args.seed + args.sessions)
        after = await _quiet(pid, address)
    return {
        "minutes": args.minutes,
        "sessions": args.sessions,
        "counts": dict(sorted(counts.items())),
        "before": before.as_json(),
        "after": after.as_json(),
        "grew": growth(before, after),
    }


async def _talk(
    args: argparse.Namespace, address: Address, minutes: float, counts: Counter[str], seed: int
) -> None:
    from clients.bench.soak_user import User
    from clients.bench.speech import default_wav, read_speech
    from clients.bench.webrtc_peer import WebRtcPeer
    from clients.bench.websocket_peer import WebSocketPeer

    def new_peer(transport: str) -> Peer:
        return WebSocketPeer(address) if transport == "ws" else WebRtcPeer(address, None)

    wav = args.audio or default_wav()
    names = TRANSPORTS if args.transport == "both" else (args.transport,)
    speeches = {name: read_speech(wav, 24_000 if name == "ws" else 48_000) for name in names}
    until_s = asyncio.get_running_loop().time() + minutes * 60
    async with asyncio.TaskGroup() as group:
        for number in range(args.sessions):
            user = User(new_peer, speeches, counts=counts, seed=seed + number)
            group.create_task(user.live(until_s), name=f"soak-{number}")


async def _quiet(pid: int, address: Address) -> Footprint:
    """A look at the server when no session is left.

    Raises:
        BenchError: sessions stay.
    """
    try:
        async with asyncio.timeout(QUIET_S):
            while gauge(await _metrics(address), "omnid_sessions"):  # noqa: ASYNC110 - by HTTP
                await asyncio.sleep(0.5)
    except TimeoutError as error:
        raise BenchError("sessions of users that are gone stay open") from error
    await asyncio.sleep(SETTLE_S)
    return look(pid, await _metrics(address))


async def _metrics(address: Address) -> str:
    from clients.bench.address import request

    return (await request(address, address.metrics_url)).body
