"""`omnid bench network`: how receivers of sound do on bad networks, beside each other in one run.

A tone that tells its own position (`clients.bench.sweep`) goes as Opus over RTP through a relay
that loses, delays and reorders (the same packets for every receiver, by the seed), to receivers in
processes of their own: `adaptive`, the daemon's; `aiortc`, the stock one; `wrtc`, libwebrtc's,
where `--wrtc-python` names an interpreter that has that package with its `aiortc` extra.

What is measured, of all sound from when the network became bad:
- added delay: from when a sound was captured to when it was handed over, less the mean delay of the
  network itself. A packet of 20 ms makes its first sound wait; that is in it for all.
- used: the share of the packets that came through whose sound was handed over.
- back after: from the end of the storm to when the delay stays within 15 ms of what it was before.

Exit codes: 0 measured, 1 a receiver failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.bench import sweep
from clients.bench.errors import BenchError
from clients.bench.impairment import NETWORKS, Condition

if TYPE_CHECKING:
    from clients.bench.network_run import ReceiverKind, Recording, Scenario

CODEC_S = 0.0065  # the Opus encoder's look-ahead: what is heard is this much older than its packet
PACKET_S = 0.02
BACK_WITHIN_S, BACK_WINDOW_S = 0.015, 0.5
PLAIN_WIDTH = 120
KINDS: tuple[ReceiverKind, ...] = ("adaptive", "aiortc")

STORM = (
    Condition(delay_ms=40, jitter_ms=5),
    Condition(delay_ms=140, jitter_ms=100, loss=0.1, mean_burst=4),
)
SCENARIOS: dict[str, tuple[Condition, Condition | None]] = {
    **{name: (at, None) for name, at in NETWORKS.items() if not at.rate_kbps},
    "storm": STORM,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--receivers", default="adaptive,aiortc", help="which, by comma (default: %(default)s)")
    add("--wrtc-python", metavar="PATH", help="an interpreter with wrtc[aiortc]: measure it too")
    add("--scenarios", default=",".join(SCENARIOS), help="which, by comma (default: all)")
    add("--seconds", type=float, default=15.0, help="of each scenario (default: %(default)s)")
    add("--seed", type=int, default=1, help="of all losses and delays (default: %(default)s)")
    add("--json", metavar="FILE", help="write a report; - is standard output, as its last line")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, write the report."""
    from rich.console import Console

    scenarios = _chosen(args.scenarios)
    names = [name.strip() for name in args.receivers.split(",") if name.strip()]
    receivers: list[ReceiverKind] = [kind for kind in KINDS if kind in names]
    if not receivers or len(receivers) != len(names):
        raise BenchError(f"--receivers: one or more of {', '.join(KINDS)}")
    if args.wrtc_python is not None:
        receivers.append("wrtc")
    if not 0 < args.seconds < math.inf:
        raise BenchError("--seconds: more than none, and an end")
    if args.json not in (None, "-"):
        _check_writable(Path(args.json))
    console = Console(stderr=args.json == "-", width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    try:
        rows = asyncio.run(_measure_all(scenarios, receivers, args))
    except ExceptionGroup as errors:
        failed = errors.subgroup(BenchError)
        if failed is None:
            raise
        raise BenchError(str(failed.exceptions[0])) from errors
    report = _report(rows, args)
    _print_table(rows, console)
    if args.json == "-":
        print(json.dumps(report))
    elif args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 0


def _check_writable(path: Path) -> None:
    """Better now than when all is measured."""
    where = path if path.exists() else path.parent
    if path.is_dir() or not where.exists() or not os.access(where, os.W_OK):
        raise BenchError(f"--json {path}: it can not be written")


def _chosen(names: str) -> list[Scenario]:
    from clients.bench.network_run import Scenario

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown or not wanted:
        raise BenchError(f"--scenarios: one or more of {', '.join(SCENARIOS)}")
    return [
        Scenario(name=name, condition=SCENARIOS[name][0], storm=SCENARIOS[name][1])
        for name in wanted
    ]


async def _measure_all(
    scenarios: list[Scenario], receivers: list[ReceiverKind], args: argparse.Namespace
) -> list[dict[str, Any]]:
    from clients.bench.network_run import measure

    rows = []
    for scenario in scenarios:
        start = asyncio.Barrier(len(receivers))
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(
                    measure(
                        name,
                        scenario,
                        seconds=args.seconds,
                        seed=args.seed,
                        python=args.wrtc_python if name == "wrtc" else "",
                        start=start,
                    )
                )
                for name in receivers
            ]
        rows += [
            {"scenario": scenario.name, "receiver": name, **evaluate(task.result(), scenario)}
            for name, task in zip(receivers, running, strict=True)
        ]
    return rows


def evaluate(recording: Recording, scenario: Scenario) -> dict[str, Any]:
    """The figures of one run; see the module's docstring."""
    heard = sweep.locate(
        recording.pcm, recording.at_s, rate_hz=recording.rate_hz, began_s=recording.began_s
    )
    network_s = scenario.condition.delay_ms / 1000
    delay_s = heard.at_s - recording.began_s - heard.position_s - network_s
    is_counted = heard.position_s >= recording.bad_s + 0.1
    added_ms = np.sort(delay_s[is_counted]) * 1000
    if not len(added_ms):
        raise BenchError("the receiver handed nothing over once the network was bad")
    first = int((recording.bad_s + 0.1) / PACKET_S) + 1
    last = int((recording.end_s - 1.0) / PACKET_S)
    counted = {
        number for number in range(first, last) if sweep.is_telling((number + 0.5) * PACKET_S)
    }
    passed = recording.passed & counted
    centres_s = heard.position_s - 0.01 + CODEC_S
    used = passed & {int(number) for number in np.floor(centres_s / PACKET_S)}
    return {
        "added_delay_ms": {
            f"p{share}": round(float(np.percentile(added_ms, share)), 1) for share in (50, 95)
        },
        "used_share": round(len(used) / max(1, len(passed)), 4),
        "packets_passed": len(passed),
        "packets_lost": len(counted) - len(passed),
        **_recovery(recording, heard),
        "cpu_share": round(recording.cpu_share, 3),
    }


def _recovery(recording: Recording, heard: sweep.Heard) -> dict[str, Any]:
    """None where there was no storm; where the delay never came back, how long was waited."""
    if recording.storm_s is None:
        return {"back_after_s": None, "is_back": None}
    began_s, ended_s = recording.storm_s
    delay_s = heard.at_s - recording.began_s - heard.position_s
    is_before = (heard.position_s >= recording.bad_s + 0.1) & (heard.position_s < began_s)
    base_s = float(np.median(delay_s[is_before])) if is_before.any() else 0.0
    back_s = 0.0
    is_back = False
    for start_s in np.arange(ended_s, recording.end_s - BACK_WINDOW_S, 0.1):
        window = delay_s[
            (heard.position_s >= start_s) & (heard.position_s < start_s + BACK_WINDOW_S)
        ]
        is_back = bool(len(window)) and float(np.median(window)) <= base_s + BACK_WITHIN_S
        if not is_back:
            back_s = float(start_s) + 0.1 - ended_s
    return {"back_after_s": round(back_s, 2), "is_back": is_back}


def _report(rows: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    from clients.bench.report import describe_client

    return {
        "benchmark": "network",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "client": describe_client(),
        "seed": args.seed,
        "seconds": args.seconds,
        "rows": rows,
    }


def _print_table(rows: list[dict[str, Any]], console: Any) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    headings = ("scenario", "receiver", "added delay\np50 ms", "\np95 ms", "used", "back\nafter s")
    table = Table(*headings, "CPU\nof a core", box=SIMPLE)
    for row in rows:
        delay, back_s = row["added_delay_ms"], row["back_after_s"]
        table.add_row(
            *(row["scenario"], row["receiver"], str(delay["p50"]), str(delay["p95"])),
            f"{row['used_share']:.1%}",
            "–" if back_s is None else f"{'' if row['is_back'] else '> '}{back_s}",
            f"{row['cpu_share']:.1%}",
        )
    console.print(table)
