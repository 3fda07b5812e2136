"""The rules of the conversation bench, on conversations whose figures are known beforehand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import events
from pipeline.bench.endpoint_sweep import sweep
from pipeline.bench.measure import Tally, measure, segments
from pipeline.bench.recording import Recording
from pipeline.bench.report import figures, table
from pipeline.bench.user import Said
from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm16
from pipeline.synthetic import examples
from pipeline.synthetic.sentences import HELD_OUT, Pool


def speaking(seconds: float, *spans: tuple[float, float]) -> Pcm16:
    pcm = np.zeros(round(seconds * ENGINE_OUTPUT_HZ), np.int16)
    for start, end in spans:
        pcm[round(start * ENGINE_OUTPUT_HZ) : round(end * ENGINE_OUTPUT_HZ)] = 3000
    return pcm


def recording(said: list[Said], agent: Pcm16, told: Any = (), cuts: Any = ()) -> Recording:
    return Recording(
        seed=0,
        said=said,
        told=list(told),
        user=np.zeros(16_000, np.float32),
        agent=agent,
        cuts=list(cuts),
        picture_ages_s=[],
        num_underruns=3,
    )


def found(*args: Any, **kwargs: Any) -> dict[str, Any]:
    tally = Tally()
    measure(recording(*args, **kwargs), tally)
    return figures(tally)


@pytest.mark.parametrize(
    ("spans", "wanted"),
    [
        ([(0.5, 1.0)], [(0.5, 1.0)]),
        ([(0.5, 1.0), (1.4, 2.0)], [(0.5, 2.0)]),
        ([(0.5, 1.0), (1.6, 2.0)], [(0.5, 1.0), (1.6, 2.0)]),
        ([(0.5, 0.55)], []),
    ],
)
def test_segments(spans: list[tuple[float, float]], wanted: list[tuple[float, float]]) -> None:
    assert np.allclose(segments(speaking(3, *spans)), wanted)


def test_latency_is_signed_and_early_answers_are_told_apart() -> None:
    said = [
        Said(sort="turn", on_s=0.0, off_s=1.0),
        Said(sort="turn", on_s=4.0, off_s=6.0, pauses=((4.5, 5.2),)),
        Said(sort="turn", on_s=9.0, off_s=11.0),
        Said(sort="turn", on_s=14.0, off_s=15.0),
    ]
    agent = speaking(20, (1.3, 2.0), (5.0, 5.4), (6.5, 7.0), (10.0, 12.0))
    summary = found(said, agent)
    assert summary["turns"] == 4
    assert summary["r_r"] == 0.75
    # of the second turn the answer behind it, of the third what was said into it: 300, 500, -1000
    assert summary["response_ms"]["p50"] == pytest.approx(300)
    assert summary["response_ms"]["p95"] == pytest.approx(480)
    assert summary["response_ms"]["share_negative"] == 0.5
    assert summary["cut_off_share"] == 0.5  # one in the pause, one over speech, of four turns
    assert summary["i_a"] == pytest.approx(1 / 3, abs=1e-3)


def test_who_yields_and_who_does_not() -> None:
    said = [
        Said(sort="interruption", on_s=2.0, off_s=3.0),
        Said(sort="interruption", on_s=8.0, off_s=9.0),
        Said(sort="backchannel", on_s=14.0, off_s=14.3),
        Said(sort="backchannel", on_s=20.0, off_s=20.3),
        Said(sort="tic", on_s=26.0, off_s=26.3),
        Said(sort="tic", on_s=31.0, off_s=31.3),
        Said(sort="noise", on_s=36.0, off_s=36.3),
    ]
    agent = speaking(
        40,
        *((1.0, 2.2), (7.0, 11.0)),
        *((13.0, 14.2), (14.5, 17.0)),  # falls silent for 300 ms and goes on
        *((19.0, 20.2), (24.0, 25.0)),  # stops for a hum
        (27.0, 28.0),  # answers a cough
        (35.0, 36.2),  # is over by itself
    )
    summary = found(said, agent, told=[(36.2, events.OutputStopped(response_id="r"))])
    assert summary["r_y"] == 0.5
    assert summary["yield_ms"]["p50"] == pytest.approx(200, abs=11)
    assert (summary["s_bc"], summary["s_vt"], summary["s_noise"]) == (0.5, 0.5, 1.0)
    assert summary["s_nd"] is None
    assert summary["false_stop"]["count"] == 3
    assert summary["false_stop"]["gap_p50_ms"] == pytest.approx(300, abs=11)


def test_a_long_sound_may_cut_a_reply_late_and_be_answered_late() -> None:
    said = [
        Said(sort="side_speech", on_s=2.0, off_s=4.4),
        Said(sort="side_speech", on_s=12.0, off_s=14.4),
        Said(sort="side_speech", on_s=22.0, off_s=24.4),
    ]
    agent = speaking(30, (1.0, 3.8), (4.2, 6.0), (14.8, 16.0), (21.0, 28.0))
    summary = found(said, agent, told=[(3.8, events.OutputCleared(response_id="r"))])
    assert summary["s_nd"] == 1.0  # within one second, and two
    assert summary["ignored_to_the_end"]["side_speech"] == pytest.approx(1 / 3, abs=1e-3)
    assert summary["ignored_to_the_end"]["backchannel"] is None


def test_a_reply_that_ends_by_itself_has_yielded_to_nobody() -> None:
    said = [Said(sort="interruption", on_s=2.0, off_s=3.0)]
    summary = found(
        said, speaking(5, (1.0, 3.1)), told=[(3.1, events.OutputStopped(response_id=""))]
    )
    assert summary["interruptions"] == 0
    assert summary["r_y"] is None


def test_a_reply_that_talks_on_to_its_end_has_not_yielded() -> None:
    said = [Said(sort="interruption", on_s=2.0, off_s=3.0)]
    agent, told = speaking(6, (1.0, 4.1)), [(4.1, events.OutputStopped(response_id=""))]
    summary = found(said, agent, told=told)
    assert (summary["interruptions"], summary["r_y"]) == (1, 0.0)


@pytest.mark.parametrize("begins_s", [2.35, 2.7])
def test_an_answer_that_comes_at_once_is_another_reply(begins_s: float) -> None:
    """However soon it begins behind the one that was interrupted, and is played to its end."""
    said = [Said(sort="interruption", on_s=2.0, off_s=2.25)]
    told: list[tuple[float, events.SessionEvent]] = [
        (2.13, events.OutputCleared(response_id="a")),
        (begins_s + 0.02, events.OutputStarted(response_id="b")),
        (begins_s + 0.6, events.OutputStopped(response_id="b")),
    ]
    agent = speaking(6, (1.0, 2.13), (begins_s, begins_s + 0.6))
    summary = found(said, agent, told=told)
    assert (summary["r_y"], summary["r_r"]) == (1.0, 1.0)
    assert summary["yield_ms"]["p50"] == pytest.approx(130, abs=11)
    assert summary["response_ms"]["p50"] == pytest.approx(1000 * (begins_s - 2.25), abs=11)


@pytest.mark.parametrize(
    ("spans", "leak_ms"),
    [
        (((1.0, 1.9),), 0),
        (((1.0, 1.9), (2.1, 2.15)), 150),  # after a gap, and short
        (((1.0, 1.9), (2.6, 3.5)), 0),  # the next reply
        (((1.0, 1.9), (2.3, 3.5)), 0),  # whose sound overtakes what tells of it
        (((1.0, 1.9), (2.1, 2.15), (2.3, 3.5)), 150),
    ],
)
def test_all_that_sounds_before_the_next_reply_is_stale(spans: Any, leak_ms: int) -> None:
    told = [
        (2.0, events.OutputCleared(response_id="a")),
        (2.5, events.OutputStarted(response_id="b")),
    ]
    summary = found([], speaking(4, *spans), told=told)
    assert summary["stale_audio_max_ms"] == pytest.approx(leak_ms, abs=11)


def test_old_sound_behind_the_decision_and_what_history_holds_of_it() -> None:
    told: list[tuple[float, events.SessionEvent]] = [
        (2.0, events.OutputCleared(response_id="a")),
        (3.0, events.Speculated(is_kept=False, text_tokens=2, audio_tokens=4)),
    ]
    summary = found([], speaking(4, (1.0, 2.05)), told=told, cuts=[(4, 3), (4, 7)])
    assert summary["stale_audio_max_ms"] == pytest.approx(50, abs=11)
    assert summary["history_truth"] == 0.5
    assert summary["stalls_per_minute"] == pytest.approx(60 * 3 / 1.05, rel=0.02)
    assert summary["speculation"] == {"kept": 0, "wasted": 1, "wasted_frames": 4}


def test_a_judge_that_knows_cuts_nothing_and_one_that_does_not_is_silence_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def example(chance: Any, *, pool: Pool) -> tuple[Any, int]:
        label = chance.randrange(2)
        return np.full(160, label, np.float32), label

    monkeypatch.setattr(examples, "turn_example", example)
    knows = SimpleNamespace(probability=lambda pcm: float(pcm[0]))
    guesses = SimpleNamespace(probability=lambda pcm: 0.5)
    for judge, is_perfect in ((knows, True), (guesses, False)):
        rows = sweep(judge, num_turns=60, seed=1, pool=HELD_OUT)
        assert [row["budget_ms"] for row in rows] == [300, 600]
        for row in rows:
            assert row["judged"] == (0.0 if is_perfect else row["silence_alone"])
        assert rows[0]["silence_alone"] > rows[1]["silence_alone"] > 0
    is_told = SimpleNamespace(probability=lambda pcm, told=0.5: told)
    for row in sweep(is_told, num_turns=60, seed=1, pool=HELD_OUT, read=lambda pcm: float(pcm[0])):
        assert row["judged_by_words"] == 0.0
        assert row["judged"] == row["silence_alone"] > 0


def test_the_table_shows_every_figure() -> None:
    summary = figures(Tally())
    shown = table({"empty": summary}, [])
    assert shown.count("-\n") > 5
    assert "R_Y" in shown
