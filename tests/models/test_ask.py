"""`omnid ask`: one answer without a server, and what it says to bad input."""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.commands import ask
from models.errors import CheckpointError, ModelError, RequestError
from models.tiny import write_tiny_checkpoint
from models.wav import write_wav


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ask") / "tiny"
    write_tiny_checkpoint(folder, seed=0)
    return folder


def run(checkpoint: Path, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    ask.add_arguments(parser)
    common = ["--model", str(checkpoint), "--device", "cpu", "--greedy"]
    return ask.run(parser.parse_args([*common, *map(str, arguments)]))


def test_a_spoken_question_with_a_picture(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "q.wav", np.zeros(4_000, np.int16), 16_000)
    Image.new("RGBA", (50, 40), (255, 0, 0, 10)).save(tmp_path / "p.png")
    question = ("--audio", tmp_path / "q.wav", "--image", tmp_path / "p.png", "--text", "what?")
    written = ("--out", tmp_path / "r.wav", "--json", tmp_path / "r.json")
    assert run(checkpoint, *question, *written, "--max-tokens", 4) == 0
    record = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert record["text"] == capsys.readouterr().out.removesuffix("\n")
    assert len(record["text_ids"]) == 4
    assert record["status"] == "incomplete"
    assert record["usage"]["input_audio_tokens"] > 0
    assert record["usage"]["input_image_tokens"] > 0
    assert {len(frame) for frame in record["codes"]} == {16}
    assert record["stages_ms"]["first_pcm"] > 0
    with wave.open(str(tmp_path / "r.wav")) as file:
        assert file.getframerate() == 24_000
        assert file.getnframes() == round(24_000 * record["audio_s"]) > 0


def test_the_record_alone_goes_to_standard_output(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, "--text", "hello", "--text-only", "--max-tokens", 2, "--json", "-")
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert printed.err.strip() == record["text"].strip()
    assert record["codes"] == []


def test_one_token_is_an_answer_without_speech(checkpoint: Path, tmp_path: Path) -> None:
    """The cut token is not spoken, so there is nothing to say: it must end all the same."""
    target = tmp_path / "r.json"
    assert run(checkpoint, "--text", "hello", "--max-tokens", 1, "--json", target) == 0
    assert json.loads(target.read_text(encoding="utf-8"))["audio_s"] == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nothing to ask"),
        (("--text", " "), "nothing to ask"),
        (("--text", "hi", "--text-only", "--out", "x.wav"), "--out has nothing to write"),
        (("--text", "hi", "--max-tokens", 0), "at least 1"),
        (("--text", "hi", "--seed", 10**30), "seed"),
        (("--text", "hi", "--voice", "nobody"), "nobody"),
        (("--audio", "none.wav"), "there is no file"),
        (("--image", "none.png"), "there is no file"),
        (("--image", "."), "can not read the picture"),
    ],
)
def test_bad_input_is_one_error(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=why):
        run(checkpoint, *arguments)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--json", "none/x.json"), "there is no folder none"),
        (("--out", "none/x.wav"), "there is no folder none"),
        (("--out", "."), "must be a file"),
        (("--out", "-"), "must be a file"),
    ],
)
def test_what_can_not_be_written_is_told_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(tmp_path / "no checkpoint", "--text", "hi", *arguments)
    assert why in capsys.readouterr().err


def test_a_picture_too_thin_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    Image.new("RGB", (900, 2)).save(tmp_path / "p.png")
    with pytest.raises(ModelError, match="too long and thin"):
        run(checkpoint, "--image", tmp_path / "p.png")


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=tmp_path.name):
        run(tmp_path, "--text", "hi")


def test_text_that_is_no_utf8_is_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(checkpoint, "--text", "\udcff")
    assert "not UTF-8" in capsys.readouterr().err
