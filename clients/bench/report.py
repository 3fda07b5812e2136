"""Numbers of many turns as one JSON object and as a table for people."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from clients.bench.measure import STAGES, TurnResult

Json = dict[str, Any]
Sessions = Sequence[Sequence[TurnResult]]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """By linear interpolation, rounded to 0.1; None of nothing."""
    return round(float(np.percentile(values, percent)), 1) if values else None


def summarize(sessions: Sessions) -> Json:
    """The numbers over all turns that went well. Stages are medians, None where not told."""
    turns = [turn for session in sessions for turn in session]
    good = [turn for turn in turns if turn.is_ok]
    latencies = [turn.first_audio_ms for turn in good if turn.first_audio_ms is not None]
    reply_min = sum(turn.reply_s for turn in good) / 60
    num_underruns = sum(turn.num_underruns for turn in good)
    return {
        "turns_ok": len(good),
        "turns_failed": len(turns) - len(good),
        "first_audio_ms": {
            f"p{percent}": percentile(latencies, percent) for percent in (50, 95, 99)
        },
        "stages_ms": {stage: _median(good, stage) for stage in STAGES},
        "underruns_per_min": round(num_underruns / reply_min, 2) if reply_min else None,
    }


def _median(turns: Sequence[TurnResult], stage: str) -> float | None:
    values = [value for turn in turns if (value := turn.stages_ms.get(stage)) is not None]
    return percentile(values, 50)


def build_report(sessions: Sessions, *, server: Json, settings: Json, started_at: datetime) -> Json:
    """The whole measurement."""
    return {
        "summary": summarize(sessions),
        "settings": settings,
        "server": server,
        "client": describe_client(),
        "date": started_at.astimezone(UTC).isoformat(timespec="seconds"),
        "turns": [
            {"session": number, "turn": index, **_turn(turn)}
            for number, session in enumerate(sessions)
            for index, turn in enumerate(session)
        ],
    }


def _turn(turn: TurnResult) -> Json:
    return {
        "ok": turn.is_ok,
        "reason": turn.reason,
        "first_audio_ms": _rounded(turn.first_audio_ms),
        "stages_ms": {stage: _rounded(value) for stage, value in turn.stages_ms.items()},
        "underruns": turn.num_underruns,
        "reply_s": round(turn.reply_s, 3),
        "interrupted": turn.num_interrupted,
        "transcript": turn.transcript,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def describe_server(url: str, health: Mapping[str, Any], session: Mapping[str, Any]) -> Json:
    """What the server told of itself; None where it told nothing."""
    checkpoint = health.get("checkpoint") or health.get("model") or session.get("model")
    known = {"url": url, "checkpoint": checkpoint, "commit": None, "machine": None}
    return {**known, **health}


def describe_client() -> Json:
    """This program and the machine that it runs on."""
    return {
        "commit": _commit(),
        "version": _version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def _version() -> str | None:
    try:
        return metadata.version("omnid")
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that runs; None outside of one."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def print_table(report: Json, console: Console) -> None:
    """One line a turn, then the summary."""
    server, client, summary = report["server"], report["client"], report["summary"]
    console.print(
        f"server {server['url']}  checkpoint {server['checkpoint']}  commit {server['commit']}  "
        f"({client['machine']}, our commit {client['commit']})",
        highlight=False,
    )
    # headings break between words: a column is as wide as its numbers
    stages = [stage.replace("_", "\n") for stage in STAGES[:-1]]
    table = Table("#", "turn", "first\naudio", *stages, "under-\nruns", "reply\ns", "", box=SIMPLE)
    for turn in report["turns"]:
        cells = [turn["session"], turn["turn"], turn["first_audio_ms"]]
        cells += [turn["stages_ms"][stage] for stage in STAGES[:-1]]
        cells += [
            turn["underruns"],
            turn["reply_s"],
            "ok" if turn["ok"] else f"[red]{turn['reason']}[/]",
        ]
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    console.print(table)
    first = summary["first_audio_ms"]
    console.print(
        f"{summary['turns_ok']} ok, {summary['turns_failed']} failed   "
        f"first audio p50 {first['p50']} p95 {first['p95']} p99 {first['p99']} ms   "
        f"underruns/min {summary['underruns_per_min']}",
        highlight=False,
    )
