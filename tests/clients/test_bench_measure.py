"""The measuring core with made-up times: what counts as the first sound, an underrun, a failure."""

from __future__ import annotations

import numpy as np
import pytest

from clients.bench.measure import STAGES, TurnMeter, TurnResult, end_of_speech, first_loud_sample
from clients.bench.report import percentile, summarize

RATE_HZ = 24_000
LOUD = np.full(2400, 1000, np.int16)  # 100 ms
QUIET = np.zeros(2400, np.int16)
CREATED = {"type": "response.created"}
DONE = {"type": "response.done", "response": {"status": "completed"}}
INTERRUPTED = {
    "type": "response.done",
    "response": {"status": "cancelled", "status_details": {"reason": "turn_detected"}},
}


def meter(*, is_paced: bool = False, ended_at: float = 10.0) -> TurnMeter:
    turn = TurnMeter(is_paced=is_paced)
    turn.speech_ended(ended_at)
    return turn


def test_edges_of_sound() -> None:
    pcm = np.concatenate([QUIET, LOUD, QUIET])
    assert (first_loud_sample(pcm), end_of_speech(pcm)) == (2400, 4800)
    assert first_loud_sample(QUIET) is None
    assert end_of_speech(np.full(10, -32768, np.int16)) == 10


def test_latency_counts_to_the_first_loud_sample() -> None:
    turn = meter()
    turn.event(CREATED)
    turn.audio(np.concatenate([QUIET, LOUD]), RATE_HZ, 10.3)
    turn.event(DONE)
    assert turn.is_over(10.3)
    result = turn.result()
    assert result.is_ok
    assert result.first_audio_ms == pytest.approx(
        400
    )  # 300 ms to arrive, 100 ms of leading silence
    assert result.stages_ms["received"] == result.first_audio_ms
    assert result.stages_ms["prefill"] is None
    assert result.reply_s == pytest.approx(0.1)


def test_answer_before_the_end_of_speech_is_negative() -> None:
    turn = TurnMeter(is_paced=False)
    turn.event(CREATED)
    turn.audio(LOUD, RATE_HZ, 9.9)
    turn.event(DONE)
    assert not turn.is_over(9.9)
    turn.speech_ended(10.0)
    assert turn.result().first_audio_ms == pytest.approx(-100)


def test_packets_ahead_of_time_are_no_underrun_and_late_ones_are() -> None:
    turn = meter()
    turn.event(CREATED)
    for at in (10.1, 10.1, 10.15, 10.35):  # 300 ms are there until 10.4
        turn.audio(LOUD, RATE_HZ, at)
    assert turn.player.num_underruns == 0
    turn.audio(LOUD, RATE_HZ, 10.55)  # the player ran dry at 10.5, within its buffer of 60 ms
    assert turn.player.num_underruns == 0
    turn.audio(LOUD, RATE_HZ, 10.80)
    assert turn.player.num_underruns == 1


def test_lost_packets_are_underruns_only_inside_a_reply() -> None:
    turn = meter(is_paced=True)
    turn.event(CREATED)
    turn.audio(QUIET, RATE_HZ, 10.1, missing_samples=480)
    turn.audio(LOUD, RATE_HZ, 10.2)
    turn.audio(LOUD, RATE_HZ, 10.3, missing_samples=480)
    assert turn.result().num_underruns == 1


def test_servers_own_underruns_count() -> None:
    turn = meter()
    turn.event(CREATED)
    turn.audio(LOUD, RATE_HZ, 10.1)
    turn.event({"type": "x.metrics", "stages_ms": {"prefill": 9.0}, "num_underruns": 3})
    turn.event(DONE)
    result = turn.result()
    assert (result.num_underruns, result.stages_ms["prefill"]) == (3, 9.0)


def test_paced_reply_ends_with_its_output() -> None:
    turn = meter(is_paced=True)
    turn.audio(LOUD, RATE_HZ, 10.0)  # before any reply: not one
    turn.event(CREATED)
    turn.event({"type": "output_audio_buffer.started"})
    turn.audio(LOUD, RATE_HZ, 10.25)
    turn.event(DONE)
    assert not turn.is_over(99.0)
    turn.event({"type": "output_audio_buffer.stopped"})
    assert turn.is_over(10.4)
    turn.audio(LOUD, RATE_HZ, 12.0)  # the line after the reply
    result = turn.result()
    assert (result.first_audio_ms, result.num_underruns) == (pytest.approx(250), 0)


def test_paced_server_without_output_events_ends_with_silence() -> None:
    turn = meter(is_paced=True)
    turn.event(CREATED)
    turn.audio(LOUD, RATE_HZ, 10.2)
    turn.event(DONE)
    assert not turn.is_over(10.9)
    assert turn.is_over(11.4)


def test_early_answer_that_was_interrupted_is_measured_again() -> None:
    turn = TurnMeter(is_paced=False)
    turn.event(CREATED)
    turn.audio(LOUD, RATE_HZ, 9.0)
    turn.event(INTERRUPTED)
    turn.speech_ended(10.0)
    assert not turn.is_over(10.1)
    turn.event(CREATED)
    turn.audio(LOUD, RATE_HZ, 10.2)
    turn.event(DONE)
    result = turn.result()
    assert (result.first_audio_ms, result.num_interrupted) == (pytest.approx(200), 1)


@pytest.mark.parametrize(
    ("status", "is_heard", "failure", "words"),
    [
        ("failed", True, None, "the reply failed: out of memory"),
        ("cancelled", True, None, "cancelled"),
        ("completed", False, None, "no audible sound"),
        ("completed", True, "timeout", "timeout"),
    ],
)
def test_failures_say_why(status: str, is_heard: bool, failure: str | None, words: str) -> None:
    turn = meter()
    turn.event(CREATED)
    if is_heard:
        turn.audio(LOUD, RATE_HZ, 10.2)
    details = {"error": {"message": "out of memory"}}
    turn.event({"type": "response.done", "response": {"status": status, "status_details": details}})
    result = turn.result(failure)
    assert not result.is_ok
    assert words in str(result.reason)


def result(first_audio_ms: float, reason: str | None = None) -> TurnResult:
    stages = dict.fromkeys(STAGES) | {"received": first_audio_ms}
    return TurnResult(
        reason=reason,
        first_audio_ms=first_audio_ms,
        stages_ms=stages,
        num_underruns=1,
        reply_s=30.0,
        transcript="",
        num_interrupted=0,
    )


def test_summary_is_of_good_turns_only() -> None:
    summary = summarize([[result(100), result(200)], [result(300), result(9e9, "timeout")]])
    assert (summary["turns_ok"], summary["turns_failed"]) == (3, 1)
    assert summary["first_audio_ms"] == {"p50": 200.0, "p95": 290.0, "p99": 298.0}
    assert summary["underruns_per_min"] == 2.0
    assert tuple(summary["stages_ms"]) == STAGES
    assert summary["stages_ms"]["received"] == 200.0
    assert summary["stages_ms"]["prefill"] is None


def test_summary_of_nothing() -> None:
    summary = summarize([[result(1, "timeout")]])
    assert summary["first_audio_ms"] == {"p50": None, "p95": None, "p99": None}
    assert summary["underruns_per_min"] is None
    assert percentile([], 50) is None
