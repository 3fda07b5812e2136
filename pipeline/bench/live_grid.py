"""`omnid bench conversation --live`: the made users call a running server, over several networks.

In real time over WebRTC and a seeded relay (`clients.bench.relay`), so the machine's load counts,
and the model's speed. What is heard is measured at the ear, behind the network and a player. What
differs from the bench without a network: a reply's decision to stop counts from when its event
reached the client; the words that were heard of a reply that was cut are found by a recogniser; the
age of pictures is the server's own figure, the mean of a call; what was speculated is not told. A
call during which this machine stood still is held again, and "microphone_late_ms" says by how much
what was said came late all the same.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pipeline.bench import report
from pipeline.bench.live import BrokenCallError, Line, LiveError, calling, talk
from pipeline.bench.measure import Tally, measure
from pipeline.bench.recording import Recording
from pipeline.bench.user import User
from pipeline.synthetic.sentences import HELD_OUT, TRAINING

NETWORKS = "clean,loss 5 %,bursts,far,slow"
USERS, EXCHANGES = 2, 4
# flags that only `--live` has a use for, and what they are where they are not given
DEFAULTS: dict[str, Any] = {
    "url": None,
    "model": None,
    "api_key": None,
    "insecure": False,
    "networks": NETWORKS,
    "camera": False,
}
TRIES = 3
MAX_LATE_S = 0.25  # of the microphone: what is later is no network's fault
# The model that ships answers these at some length, where it understands them.
QUESTIONS = (
    "What can you do for me?",
    "Please tell me what you can do.",
    "Can you count from one to twelve?",
    "Please count up to eleven.",
    "Please tell me a joke now.",
    "I am bored today.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `--live`; None where not given."""
    add = parser.add_argument_group("in real time, with a server").add_argument
    add("--live", action="store_true", help="call a server over WebRTC, through bad networks")
    add("--url", help="of the server (default: one is started that serves --model)")
    add("--model", metavar="DIR|HUB-ID", help="checkpoint to serve (the server's default)")
    add("--api-key", metavar="KEY", help="if the server wants one")
    add("--insecure", action="store_true", default=None, help="accept any TLS certificate")
    add("--networks", help=f"by comma (default: {NETWORKS})".replace("%", "%%"))
    add("--camera", action="store_true", default=None, help="the user shows something that moves")


async def measure_live(args: argparse.Namespace) -> tuple[dict[str, Any], Recording | None]:
    """The document of the command, and the first conversation. A network that all calls of a user
    broke in has null for figures.

    Raises:
        LiveError: there is no such network, or nobody calls any more.
    """
    networks = [name.strip() for name in args.networks.split(",") if name.strip()]
    first: Recording | None = None
    found: dict[str, dict[str, Any] | None] = {}
    where = {name: getattr(args, name) for name in ("url", "model", "api_key", "insecure")}
    async with calling(**where) as line:
        if unknown := [name for name in networks if name not in line.networks]:
            known = ", ".join(line.networks)
            raise LiveError(f"--networks: there is no {unknown[0]!r}; there are {known}")
        for network in networks:
            try:
                found[network], recording = await _over(line, network, args)
            except LiveError as error:
                if not line.is_alive:
                    raise
                print(f"given up, network {network}: {error}", file=sys.stderr)
                found[network] = None
            else:
                first = first or recording
        server = line.server
    document = {
        "users": args.users,
        "exchanges": args.exchanges,
        "seed": args.seed,
        "voices": "training" if args.training_voices else "held out",
        "server": {name: server.get(name) for name in ("model", "checkpoint", "commit")},
        "camera": args.camera,
        "eagerness": args.eagerness,
        "setups": found,
        "endpointing": [],
    }
    return document, first


async def _over(
    line: Line, network: str, args: argparse.Namespace
) -> tuple[dict[str, Any], Recording]:
    """Figures of all users' calls through one network, and the first call.

    Raises:
        LiveError: a user's calls broke.
    """
    tally, recordings = Tally(), []
    for seed in range(args.seed, args.seed + args.users):
        print(f"user {seed} calls, network: {network}", file=sys.stderr)
        recordings.append(await _call(line, network, seed, args))
        measure(recordings[-1], tally)
    figures = report.figures(tally)
    figures["microphone_late_ms"] = round(1000 * max(one.late_s for one in recordings))
    figures["speculation"] = None
    return figures, recordings[0]


async def _call(line: Line, network: str, seed: int, args: argparse.Namespace) -> Recording:
    """One user's call; of some that this machine disturbed, the one that it disturbed least.

    Raises:
        LiveError: all of them broke.
    """
    detection = {"type": "semantic_vad", "eagerness": args.eagerness}
    session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    held: list[Recording] = []
    for _ in range(TRIES):
        user = User(
            seed=seed,
            num_exchanges=args.exchanges,
            pool=TRAINING if args.training_voices else HELD_OUT,
            questions=QUESTIONS,
        )
        try:
            held.append(
                await talk(
                    line,
                    user,
                    network=network,
                    seed=seed,
                    has_camera=args.camera,
                    session=session,
                )
            )
        except BrokenCallError as error:
            print(f"once more: {error}", file=sys.stderr)
            continue
        if held[-1].late_s <= MAX_LATE_S:
            break
        print(f"disturbed: the microphone was {held[-1].late_s:.1f} s late", file=sys.stderr)
    if not held:
        raise LiveError(f"{TRIES} calls broke")
    return min(held, key=lambda recording: recording.late_s)
