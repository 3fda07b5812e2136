"""Whole conversations with a made user: the same each time, and everybody understands everybody."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.__main__ import main
from pipeline.bench import conversation
from pipeline.bench.measure import Tally, measure
from pipeline.bench.picture import AGENTS, USERS, decisions
from pipeline.bench.report import figures
from pipeline.bench.scripted_engine import spoken_replies
from pipeline.bench.talk import Recording, Setup, num_heard, talk
from pipeline.bench.user import User
from pipeline.listening.judges import our_judges
from pipeline.synthetic import voices
from pipeline.synthetic.sentences import TRAINING

pytestmark = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@pytest.fixture(autouse=True)
def _flite_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = (("flite", "slt"), ("flite", "rms"))
    monkeypatch.setattr(voices, "TRAINING", pool)
    monkeypatch.setattr(voices, "HELD_OUT", pool)


def talked(name: str, *, seed: int = 3, num_exchanges: int = 3) -> Recording:
    setup = Setup(
        detection=conversation.setups("auto")[name],
        judges=our_judges(),
        replies=spoken_replies(),
        delay_s=0.15,
        frame_s=0.03,
    )
    user = User(seed=seed, num_exchanges=num_exchanges, pool=TRAINING)
    return asyncio.run(talk(setup, user))


def test_a_conversation_is_the_same_each_time_and_is_answered() -> None:
    first, second = talked("judged"), talked("judged")
    assert first.said == second.said
    assert np.array_equal(first.agent, second.agent)
    tally = Tally()
    measure(first, tally)
    summary = figures(tally)
    assert summary["r_r"] == 1.0
    assert summary["history_truth"] in (1.0, None)
    assert summary["speculation"]["kept"] >= 3
    assert summary["picture_age_ms"]["p95"] < 500
    assert summary["stalls_per_minute"] == 0


def test_words_of_replies_end_where_they_are_said_to() -> None:
    for spoken in spoken_replies():
        assert spoken.text_at(len(spoken.pcm)) == spoken.text
        assert spoken.text_at(0) == ""
        half = spoken.text_at(len(spoken.pcm) // 2)
        assert 0.3 < len(half) / len(spoken.text) < 0.7
        assert spoken.text.startswith(half)


def test_the_command_writes_figures_and_a_picture(tmp_path: Path, capsys: Any) -> None:
    picture = tmp_path / "talk.png"
    arguments = ["bench", "conversation", "--users", "1", "--exchanges", "1", "--processes", "1"]
    arguments += ["--sweep-turns", "20", "--json", "-", "--picture", str(picture)]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["setups"]) == list(conversation.setups("auto"))
    assert document["setups"]["judged"]["turns"] >= 1
    for row, budget_ms in zip(document["endpointing"], (300, 600), strict=True):
        assert row["budget_ms"] == budget_ms
        assert 0 <= row["judged_by_words"] <= 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_missing_synthesizer_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(voices, "HELD_OUT", (("no-such-program", "x"),))
    assert main(["bench", "conversation"]) == 1
    error = capsys.readouterr().err
    assert error == "omnid bench conversation: not installed: no-such-program\n"


@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("count", [700, 9_000, 30_000])
def test_what_was_heard_is_found_in_the_sound_itself(count: int, gain: float) -> None:
    said = (3000 * np.random.default_rng(1).normal(size=40_000)).astype(np.int16)
    before, pause = np.zeros(5_000, np.int16), np.zeros(1_000, np.int16)
    half = count // 2
    heard = np.concatenate([before, said[:half], pause, said[half:count], pause])
    found = num_heard((heard * gain).astype(np.int16), said)
    assert found == pytest.approx(count, abs=10)
    assert num_heard(before, said) == 0


def test_the_picture_knows_what_was_decided_of_a_sound_over_a_reply() -> None:
    recording = talked("judged", num_exchanges=5)
    found = decisions(recording)
    assert found == sorted(found)
    made = [what for _, what in found]
    assert {what for what in made if what not in {*USERS, *AGENTS}} == set()
    over = [s for s in recording.said if s.sort not in ("turn", "interruption")]
    assert over
    assert made.count("ducked") >= made.count("held") > 0
    for time_s, what in found:
        if what == "held":  # it comes to something: it goes on, or is over
            behind = {later for at_s, later in found if time_s < at_s < time_s + 1.5}
            assert behind & {"goes on", "reply cut"}
