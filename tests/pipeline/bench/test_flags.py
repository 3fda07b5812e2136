"""What `omnid bench conversation` makes of its flags, before anybody talks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.__main__ import main
from pipeline.bench import conversation, live_grid
from pipeline.bench.measure import Tally
from pipeline.bench.report import figures
from pipeline.synthetic import voices

Capture = pytest.CaptureFixture[str]
DOCUMENT: dict[str, Any] = {"setups": {"judged": figures(Tally())}, "endpointing": []}
NOT_LIVE = [
    ("--setup", "judged"),
    ("--smart-turn", "x.onnx"),
    ("--sweep-turns", "200"),
    ("--engine-ms", "150"),
    ("--frame-ms", "30"),
    ("--reading-ms", "30"),
    ("--processes", "1"),
    ("--words", "own"),
]
ONLY_LIVE = [
    ("--url", "http://127.0.0.1:1"),
    ("--model", "embedded"),
    ("--api-key", "x"),
    ("--insecure",),
    ("--networks", "clean"),
    ("--camera",),
]


def called(*arguments: str) -> int:
    """The exit code, whoever gives it."""
    try:
        return main(["bench", "conversation", *arguments])
    except SystemExit as error:
        return int(str(error.code))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The flags with which it would have been measured; nobody talks."""
    found: list[Any] = []

    def measured(args: Any) -> tuple[dict[str, Any], Any]:
        found.append(args)
        return DOCUMENT, object()

    monkeypatch.setattr(conversation, "_measure", measured)
    return found


def refused(capsys: Capture, seen: list[Any], *arguments: str) -> str:
    """The one line that says why not."""
    assert called(*arguments) == 2
    assert not seen
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("omnid bench conversation: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("flag", "values", "told"),
    [
        ("--users", ("0", "-1", "1.5", "x", ""), "a whole number from 1"),
        ("--exchanges", ("0", "-1", "nan"), "a whole number from 1"),
        ("--processes", ("0", "-2"), "a whole number from 1"),
        ("--sweep-turns", ("1", "19", "-20", "x"), "0 or a whole number from 20"),
        ("--engine-ms", ("-1", "nan", "inf", "x"), "a number from 0"),
        ("--frame-ms", ("-0.1", "nan", "inf"), "a number from 0"),
        ("--reading-ms", ("-1", "nan", "1e999"), "a number from 0"),
    ],
)
def test_numbers_out_of_range_are_refused(
    flag: str, values: tuple[str, ...], told: str, capsys: Capture, seen: list[Any]
) -> None:
    for value in values:
        error = refused(capsys, seen, f"{flag}={value}")
        assert f"argument {flag}: must be {told}, not {value!r}" in error


def test_what_is_said_is_taken_and_the_rest_filled_in(seen: list[Any]) -> None:
    assert called("--users", "1", "--sweep-turns", "0", "--engine-ms", "0") == 0
    assert called("--sweep-turns", "20", "--exchanges", "2") == 0
    assert called("--live") == 0
    first, second, live = seen
    assert (first.users, first.exchanges, first.sweep_turns, first.engine_ms) == (1, 10, 0, 0.0)
    assert (second.users, second.exchanges, second.sweep_turns) == (16, 2, 20)
    assert (second.engine_ms, second.frame_ms, second.reading_ms) == (150.0, 30.0, 30.0)
    assert second.processes == os.cpu_count()
    assert second.words == "model"
    assert (live.users, live.exchanges) == (live_grid.USERS, live_grid.EXCHANGES)
    assert live.networks == live_grid.NETWORKS
    assert (live.camera, live.insecure) == (False, False)


def test_setups_are_chosen_by_name(capsys: Capture, seen: list[Any]) -> None:
    names = list(conversation.setups("auto"))
    error = refused(capsys, seen, "--setup", "jugded")
    assert all(name in error for name in names)
    assert called("--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(repr(name) in told for name in names)
    assert called(*(word for name in names for word in ("--setup", name))) == 0
    assert seen[0].setup == names


@pytest.mark.parametrize("flag", ["--json", "--picture"])
def test_a_file_that_can_not_be_written_is_seen_at_once(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, seen: list[Any]
) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert "this is a folder" in refused(capsys, seen, flag, str(folder))
    assert "there is no folder" in refused(capsys, seen, flag, str(tmp_path / "no" / "x.png"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "can not be written" in refused(capsys, seen, flag, str(tmp_path / "x.png"))


@pytest.mark.parametrize("name", ["talk", "talk.wav", "talk.json"])
def test_a_picture_is_of_a_kind_that_can_be_drawn(
    name: str, tmp_path: Path, capsys: Capture, seen: list[Any]
) -> None:
    assert ".png, .svg, .pdf" in refused(capsys, seen, "--picture", str(tmp_path / name))


def test_a_picture_needs_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, seen: list[Any]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "needs matplotlib" in refused(capsys, seen, "--picture", str(tmp_path / "x.png"))


@pytest.mark.usefixtures("seen")
def test_the_table_is_printed_though_a_file_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", fails)
    assert called("--json", str(tmp_path / "x.json")) == 1
    out, error = capsys.readouterr()
    assert "response p50 ms" in out
    assert error == "omnid bench conversation: no space left\n"
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(conversation, "draw", fails)
    assert called("--json", "-", "--picture", str(tmp_path / "x.svg")) == 1
    out, error = capsys.readouterr()
    assert json.loads(out) == DOCUMENT
    assert "response p50 ms" in error
    assert error.endswith("omnid bench conversation: no space left\n")


def test_a_judge_that_is_not_there_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(voices, "missing_programs", lambda **_: [])
    missing = tmp_path / "x.onnx"
    assert called("--smart-turn", str(missing), "--processes", "1") == 2
    assert str(missing) in capsys.readouterr().err


@pytest.mark.parametrize("words", NOT_LIVE, ids=lambda words: words[0])
def test_flags_without_meaning_in_real_time_are_refused(
    words: tuple[str, ...], capsys: Capture, seen: list[Any]
) -> None:
    error = refused(capsys, seen, "--live", *words)
    assert error == f"omnid bench conversation: {words[0]} has no meaning with --live\n"
    assert called(*words) == 0


@pytest.mark.parametrize("words", ONLY_LIVE, ids=lambda words: words[0])
def test_flags_of_real_time_need_it(
    words: tuple[str, ...], capsys: Capture, seen: list[Any]
) -> None:
    error = refused(capsys, seen, *words)
    assert error == f"omnid bench conversation: {words[0]} needs --live\n"
    assert called("--live", *words) == 0


def test_a_server_that_runs_has_its_model(capsys: Capture, seen: list[Any]) -> None:
    error = refused(capsys, seen, "--live", "--url", "http://a.b", "--model", "embedded")
    assert "--model is for the server that is started" in error


def test_both_kinds_draw_and_speak_with_the_voices_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[Any]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(conversation, "draw", lambda *_: None)
    words = ("--training-voices", "--picture", str(tmp_path / "x.PDF"))
    assert called(*words) == called("--live", *words) == 0
    assert len(seen) == 2


def test_a_synthesizer_that_ctrl_c_ended_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(-signal.SIGINT, command)

    monkeypatch.setattr(subprocess, "run", ended)
    with pytest.raises(KeyboardInterrupt):
        voices.say("Nobody has said this.", voices.Voice(program="espeak-ng", name="en-us"))
