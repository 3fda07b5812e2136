"""The figures of `omnid bench engine`, from times that are known."""

from __future__ import annotations

from typing import Any

import pytest

from models.commands.figures import (
    Reply,
    batching_figures,
    ratios,
    reference_figures,
    reply_figures,
    session_figures,
    turn_figures,
)
from models.commands.floor import Floor


def reply(**changes: Any) -> Reply:
    """Eleven frames in half a second: 0.1 s to the first, then 40 ms each."""
    usual: dict[str, Any] = {
        "first_audio_ms": 100.0,
        "total_ms": 500.0,
        "cpu_ms": 450.0,
        "audio_s": 0.8,
        "tokens_left": 33,
        "text_ids": (),
        "codes": ((),) * 11,
    }
    return Reply(**(usual | changes))


def test_a_reply_beside_its_floor() -> None:
    floor = Floor(
        thinker_bytes=12_000_000,
        talker_bytes=5_000_000,
        predictor_bytes=2_000_000,
        vocoder_bytes=1_000_000,
        bytes_per_s=2e9,
    )  # 6 ms for a token and 4 ms for a frame
    assert reply_figures(reply(), floor) == {
        "first_audio_ms": 100.0,
        "frame_ms": 40.0,
        "rtf": 0.625,
        "audio_s_per_s": 1.6,
        "tokens_left_at_turn_end": 33,
        "reply_ms": 500.0,
        "reply_cpu_ms": 450.0,
        "floor_reached": 0.25,
    }


def test_the_last_turns_over_the_first() -> None:
    """Of each five the median by time to first audio, whatever else these turns are."""
    first = [reply(first_audio_ms=time, cpu_ms=10.0, tokens_left=20) for time in (9, 1, 2, 8, 4)]
    between = [reply(first_audio_ms=1000.0)]
    last = [reply(first_audio_ms=time, cpu_ms=30.0, tokens_left=50) for time in (6, 90, 5, 7, 80)]
    assert turn_figures(first + between + last) == {
        "turn11_over_turn1": 1.75,
        "turn11_over_turn1_cpu": 3.0,
        "turn11_over_turn1_tokens": 2.5,
    }


def test_turns_that_would_be_first_and_last_are_not_compared() -> None:
    turns = [reply(first_audio_ms=float(time)) for time in range(1, 11)]
    assert turn_figures(turns)["turn10_over_turn1"] == pytest.approx(8 / 3, abs=1e-3)
    assert set(turn_figures(turns[:9])) == {
        "turn9_over_turn1",
        "turn9_over_turn1_cpu",
        "turn9_over_turn1_tokens",
    }
    assert set(turn_figures(turns[:9]).values()) == {None}


def test_sessions_at_once() -> None:
    assert session_figures([0.3, 0.1, 0.2], 48_000, 0.5) == {
        "first_audio_ms_p50": 200.0,
        "first_audio_ms_max": 300.0,
        "audio_s_per_s": 4.0,
    }


def test_what_is_gained_together() -> None:
    """The better run of each, and the times of the one that is reported."""
    together = [
        {"audio_s_per_s": 5.0, "first_audio_ms_p50": 1.0},
        {"audio_s_per_s": 6.0, "first_audio_ms_p50": 2.0},
    ]
    assert batching_figures(together, [{"audio_s_per_s": 2.0}, {"audio_s_per_s": 1.5}]) == {
        "audio_s_per_s": 6.0,
        "first_audio_ms_p50": 2.0,
        "audio_s_per_s_one_by_one": 2.0,
        "batching_gain": 3.0,
    }


def test_the_reference_over_ours() -> None:
    theirs = reference_figures(total_ms=4000.0, cpu_ms=3600.0, num_frames=10, audio_s=0.8)
    assert theirs == {
        "first_audio_ms": 4000.0,
        "frame_ms": 400.0,
        "rtf": 5.0,
        "audio_s_per_s": 0.2,
        "reply_ms": 4000.0,
        "reply_cpu_ms": 3600.0,
    }
    ours = {
        "first_audio_ms": 100.0,
        "frame_ms": 40.0,
        "rtf": 0.625,
        "reply_ms": 500.0,
        "reply_cpu_ms": 450.0,
    }
    assert ratios(theirs, ours) == {
        "first_audio_ms": 40.0,
        "frame_ms": 10.0,
        "rtf": 8.0,
        "reply_ms": 8.0,
        "reply_cpu_ms": 8.0,
    }
