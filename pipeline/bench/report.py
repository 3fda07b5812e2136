"""Figures of the conversation bench as one document, and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.bench.measure import Tally

ROWS = {
    "response p50 ms": "response_ms.p50",
    "response p95 ms": "response_ms.p95",
    "response < 0": "response_ms.share_negative",
    "R_R": "r_r",
    "answers that cut the user off": "cut_off_share",
    "I_A": "i_a",
    "R_Y": "r_y",
    "yield p50 ms": "yield_ms.p50",
    "yield p95 ms": "yield_ms.p95",
    "S_BC": "s_bc",
    "S_VT": "s_vt",
    "S_ND": "s_nd",
    "S_noise": "s_noise",
    "hums ignored to their end": "ignored_to_the_end.backchannel",
    "side speech, to its end": "ignored_to_the_end.side_speech",
    "false stops resumed": "false_stop.resumed_share",
    "their gap p50 ms": "false_stop.gap_p50_ms",
    "stale audio max ms": "stale_audio_max_ms",
    "history truth": "history_truth",
    "picture age p95 ms": "picture_age_ms.p95",
    "stalls a minute": "stalls_per_minute",
    "speculations kept": "speculation.kept",
    "in vain": "speculation.wasted",
    "frames in vain": "speculation.wasted_frames",
}


SOUNDS = ("backchannel", "tic", "side_speech", "noise")


def figures(tally: Tally) -> dict[str, Any]:
    """The summary of a tally; None where nothing was counted."""
    return {
        "turns": tally.num_turns,
        "response_ms": {
            **_quantiles(tally.latencies_s),
            "share_negative": _share(tally.num_cut_off, tally.num_turns),
        },
        "r_r": _share(tally.num_answered, tally.num_turns),
        "cut_off_share": _share(tally.num_in_pause + tally.num_over_speech, tally.num_turns),
        "i_a": _share(tally.num_over_speech, tally.num_answered),
        "interruptions": tally.num_interruptions,
        "r_y": _share(len(tally.yields_s), tally.num_interruptions),
        "yield_ms": _quantiles(tally.yields_s),
        "s_bc": _ignored(tally.false_yields, "backchannel"),
        "s_vt": _ignored(tally.false_yields, "tic"),
        "s_nd": _ignored(tally.false_yields, "side_speech"),
        "s_noise": _ignored(tally.false_yields, "noise"),
        "ignored_to_the_end": {sort: _ignored(tally.late_false_yields, sort) for sort in SOUNDS},
        "cases": {sort: len(errors) for sort, errors in sorted(tally.false_yields.items())},
        "false_stop": {
            "count": tally.num_false_stops,
            "resumed_share": _share(len(tally.false_stop_gaps_s), tally.num_false_stops),
            "gap_p50_ms": _quantiles(tally.false_stop_gaps_s)["p50"],
        },
        "stale_audio_max_ms": round(max(tally.leaks_ms), 1) if tally.leaks_ms else None,
        "history_truth": _share(sum(e <= 1 for e in tally.word_errors), len(tally.word_errors)),
        "picture_age_ms": _quantiles(tally.freshness_s),
        "stalls_per_minute": round(60 * tally.num_underruns / max(1e-9, tally.agent_s), 2),
        "speculation": {
            "kept": tally.num_kept,
            "wasted": tally.num_wasted,
            "wasted_frames": tally.wasted_frames,
        },
    }


def table(
    summaries: Mapping[str, Mapping[str, Any] | None], sweep: Sequence[Mapping[str, Any]]
) -> str:
    """Both as text: one column for each setup, one line for each budget of the end of turns."""
    width = max(map(len, summaries)) + 2
    lines = [" " * 32 + "".join(f"{name:>{width}}" for name in summaries)]
    for title, path in ROWS.items():
        cells = (_text(_at(summary, path)) for summary in summaries.values())
        lines.append(f"{title:<32}" + "".join(f"{cell:>{width}}" for cell in cells))
    lines.append("")
    for row in sweep:
        by_words = f", {_text(row['judged_by_words'])} by words" if "judged_by_words" in row else ""
        lines.append(
            f"pauses cut off at a mean wait of {row['budget_ms']} ms: {_text(row['judged'])} judged"
            f"{by_words}, {_text(row['silence_alone'])} by silence alone ({row['pauses']} pauses)"
        )
    return "\n".join(lines)


def _at(summary: Mapping[str, Any] | None, path: str) -> Any:
    found: Any = summary
    for key in path.split("."):
        if found is None:
            return None
        found = found[key]
    return found


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) and abs(value) < 10 else f"{value:.0f}"


def _quantiles(values_s: Sequence[float]) -> dict[str, float | None]:
    if not values_s:
        return {"p50": None, "p95": None}
    p50, p95 = np.quantile(values_s, (0.5, 0.95))
    return {"p50": round(1000 * float(p50), 1), "p95": round(1000 * float(p95), 1)}


def _ignored(errors: Mapping[str, list[bool]], sort: str) -> float | None:
    found = errors.get(sort, [])
    return round(1 - sum(found) / len(found), 3) if found else None


def _share(count: int, total: int) -> float | None:
    return round(count / total, 3) if total else None
