"""What the scheduler plans by: listeners' clocks, the price of prefill, room for one more."""

from __future__ import annotations

import pytest

from models.deadlines import (
    LATE_FRAMES_SEEN,
    MIN_CHUNK_TOKENS,
    MIN_SPEAKING,
    Admission,
    BatchPace,
    PlayoutClock,
    PrefillPace,
)

FRAME = 1920


def test_speech_runs_dry_when_it_has_been_played() -> None:
    clock = PlayoutClock()
    assert clock.slack_s(5.0) is None
    assert clock.give(FRAME, 5.0) is False
    clock.start(5.0)
    assert clock.slack_s(5.03) == pytest.approx(0.05)
    assert clock.give(FRAME, 5.07) is False
    assert clock.slack_s(5.07) == pytest.approx(0.09)


def test_a_late_frame_is_counted_and_the_next_deadline_counts_from_it() -> None:
    clock = PlayoutClock()
    clock.give(FRAME, 0.0)
    clock.start(0.0)
    assert clock.give(FRAME, 0.2) is True
    assert clock.num_late == 1
    assert clock.slack_s(0.2) == pytest.approx(0.08)
    assert clock.give(FRAME, 0.25) is False


def test_prefill_is_cut_to_the_speech_that_is_left() -> None:
    pace = PrefillPace()
    assert pace.chunk(512, None) == 512
    assert pace.chunk(512, 1.0) == MIN_CHUNK_TOKENS  # nothing is known yet
    pace.learn(100, 0.1)
    assert pace.chunk(512, 0.2405) == 200
    assert pace.chunk(512, 10.0) == 512
    assert pace.chunk(512, -1.0) == MIN_CHUNK_TOKENS
    assert pace.chunk(8, 0.0) == 8
    pace.learn(1, 100.0)  # a lone token says nothing about a prefill
    assert pace.chunk(512, 0.2405) == 200


def test_a_batch_is_rather_thought_dearer_than_cheaper() -> None:
    pace = BatchPace()
    assert pace.cost_s("frame", 2) is None
    pace.learn("frame", 2, 0.04)
    assert pace.cost_s("frame", 1) == pace.cost_s("frame", 2) == 0.04
    assert pace.cost_s("frame", 4) == pytest.approx(0.08)
    pace.learn("frame", 6, 0.05)
    assert pace.cost_s("frame", 4) == 0.05
    pace.learn("frame", 6, 0.15)
    assert pace.cost_s("frame", 6) == pytest.approx(0.08)
    assert pace.cost_s("token", 1) is None


def test_a_session_more_is_refused_where_many_are_served_late() -> None:
    admission = Admission()
    for number in range(LATE_FRAMES_SEEN):
        assert admission.refusal(MIN_SPEAKING) is None
        admission.note(is_late=number % 3 == 0)
    refusal = admission.refusal(MIN_SPEAKING)
    assert refusal is not None
    assert "34% of their speech comes late" in refusal
    assert admission.refusal(MIN_SPEAKING - 1) is None
    for _ in range(LATE_FRAMES_SEEN):
        admission.note(is_late=False)
    assert admission.refusal(MIN_SPEAKING) is None
