"""`omnid checkpoint verify`: an honest report of a random checkpoint, and what it finds wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from models.commands import checkpoint
from models.commands.verify import judge, level_dbfs, questions
from models.errors import CheckpointError
from models.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


def run(folder: Path) -> int:
    parser = argparse.ArgumentParser()
    checkpoint.add_arguments(parser)
    return checkpoint.run(parser.parse_args(["verify", str(folder), "--device", "cpu"]))


def test_a_random_checkpoint_babbles(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny) == 0
    report = capsys.readouterr().out
    assert report.count("verdict: not judged, it babbles") == 3
    assert report.count("dBFS, first samples after") == 3
    assert "it babbles. It loads, answers and sounds" in report
    assert "checkpoint tiny\nconfig.json sha256 " in report
    assert str(tiny.parent) not in report


def test_wrong_answers_are_an_error(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    try:
        path.write_text(json.dumps({**raw, "omnid_babbles": False}), encoding="utf-8")
        assert run(tiny) == 1
    finally:
        path.write_text(json.dumps(raw), encoding="utf-8")
    report = capsys.readouterr().out
    assert "no paris in the answer" in report
    assert "no red in the answer" in report


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        run(tmp_path / "nowhere")


def test_the_judge() -> None:
    typed, spoken, seen = questions()
    speech = (3000 * np.sin(np.arange(24_000) / 20)).astype(np.int16)
    assert judge(typed, "It is **Paris**.", speech, has_voice=True) == ()
    assert judge(spoken, "One, two, three, four, five!", speech, has_voice=True) == ()
    assert judge(spoken, "1, 2, 3, 4", speech, has_voice=True) == ("no 5 or five in the answer",)
    assert judge(seen, "Covered in green", speech, has_voice=False) == ("no red in the answer",)
    (fault,) = judge(seen, "Red.", 0 * speech, has_voice=True)
    assert "its level is -inf dBFS" in fault
    assert judge(seen, "Red.", 0 * speech, has_voice=False) == ()


def test_levels() -> None:
    assert level_dbfs(np.full(10, -32768, np.int16)) == pytest.approx(0.0)
    assert level_dbfs(np.full(10, 3277, np.int16)) == pytest.approx(-20.0, abs=0.01)
    assert level_dbfs(np.zeros(0, np.int16)) == float("-inf")
