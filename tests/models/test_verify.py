"""`omnid checkpoint verify`: an honest report of a random checkpoint, and what it finds wrong."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from models.commands import checkpoint, verify
from models.commands.ask import Answer
from models.commands.sound import NOISE_FLATNESS, flatness, level_dbfs
from models.commands.verify import Finding, Question, conclude, describe, judge, questions
from models.content import Pcm16
from models.engine import Engine
from models.errors import CheckpointError, ModelError
from models.tiny import write_tiny_checkpoint
from models.wav import read_wav

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


def run(folder: Path, *flags: str) -> int:
    parser = argparse.ArgumentParser()
    checkpoint.add_arguments(parser)
    return checkpoint.run(parser.parse_args(["verify", str(folder), "--device", "cpu", *flags]))


def test_a_random_checkpoint_babbles(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    assert run(tiny) == 0
    took_s = time.perf_counter() - started
    report = capsys.readouterr().out
    assert report.count("verdict: its words are not judged, it babbles") == 3
    assert report.count("dBFS, flatness 0.") == 3
    assert "(like noise), first samples after" in report
    last = report.splitlines()[-1]
    assert last.startswith("Random, it babbles: it loads, answers and sounds, like noise, but")
    assert "checkpoint tiny\nconfig.json sha256 " in report
    assert str(tiny.parent) not in report
    speech = re.findall(r"speech: ([\d.]+) s .*RTF ([\d.]+)", report)
    assert 0 < sum(float(audio_s) * float(rtf) for audio_s, rtf in speech) < took_s


def test_options_are_named(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "--experts", "int4", "--devices", "talker=cpu", "--dtype", "float32") == 0
    told = "asked for: device cpu, dtype float32, experts int4, talker on cpu\n"
    assert told in capsys.readouterr().out


def test_a_vocoder_of_zeros_is_an_error(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "silent"
    shutil.copytree(tiny, folder)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        save_file({n: 0 * t if n.startswith("code2wav") else t for n, t in tensors.items()}, path)
    assert run(folder) == 1
    report = capsys.readouterr().out
    assert report.count("verdict: it is silent: -inf dBFS\n") == 3
    assert report.endswith("\n3 of 3 answers have faults.\n")


def test_an_answer_that_fails_is_an_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a random checkpoint, too; the other questions are asked all the same."""
    collect, asked = Answer.collect, []

    def collected(engine: Engine, echo: TextIO) -> Answer:
        asked.append(engine)
        if len(asked) == 1:
            raise ModelError("out of memory")
        return collect(engine, echo)

    monkeypatch.setattr(Answer, "collect", collected)
    assert run(tiny) == 1
    report = capsys.readouterr().out
    assert "verdict: it failed: out of memory\n" in report
    assert report.count("verdict: its words are not judged, it babbles") == 2
    assert report.endswith("\n1 of 3 answers have faults.\n")


def test_answers_without_an_end_are_an_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "MAX_TOKENS", 2)
    assert run(tiny) == 1
    assert capsys.readouterr().out.count("verdict: an answer without an end\n") == 3


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
    assert "it sounds like noise" in report


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        run(tmp_path / "nowhere")


SPEECH = (3000 * np.sin(np.arange(24_000) / 20)).astype(np.int16)
NOISE = (3000 * np.random.default_rng(0).standard_normal(24_000)).astype(np.int16)
TYPED, SPOKEN, SEEN = questions()


def judged(
    question: Question,
    text: str,
    pcm: Pcm16 = SPEECH,
    *,
    was_cut: bool = False,
    has_voice: bool = True,
    is_babbling: bool = False,
) -> tuple[str, ...]:
    return judge(question, text, pcm, was_cut=was_cut, has_voice=has_voice, is_babbling=is_babbling)


def test_words_are_judged() -> None:
    assert judged(TYPED, "It is **Paris**.") == ()
    assert judged(SPOKEN, "One, two, three, four, five!") == ()
    assert judged(SPOKEN, "1, 2, 3, 4") == ("no 5 or five in the answer",)
    assert judged(SEEN, "Covered in green", has_voice=False) == ("no red in the answer",)
    assert judged(SEEN, "Covered in green", is_babbling=True) == ()


@pytest.mark.parametrize("is_babbling", [False, True])
def test_what_no_answer_may_be(is_babbling: bool) -> None:
    def fault(**changes: Any) -> str:
        usual: dict[str, Any] = {"text": "Red.", "pcm": SPEECH}
        (found,) = judged(SEEN, **(usual | changes), is_babbling=is_babbling)
        return found

    assert fault(pcm=0 * SPEECH) == "it is silent: -inf dBFS"
    assert fault(pcm=SPEECH // 1000) == "it is silent: -84.1 dBFS"
    assert fault(pcm=SPEECH[:0]) == "it is not spoken"
    assert (
        fault(pcm=np.clip(SPEECH, -10, 10) * 2500)
        == "it is too loud: -2.4 dBFS; speech stays below -6"
    )
    assert "it is clipped: 0.4%" in fault(pcm=with_peaks(100))
    assert fault(was_cut=True) == "an answer without an end"
    assert fault(pcm=np.tile(SPEECH, 61)) == "an answer without an end"
    assert judged(SEEN, " ", is_babbling=is_babbling)[0] == "an empty answer"
    assert judged(SEEN, "Red.", with_peaks(20), is_babbling=is_babbling) == ()
    assert judged(SEEN, "Red.", 0 * SPEECH, has_voice=False, is_babbling=is_babbling) == ()


def with_peaks(number: int) -> Pcm16:
    pcm = SPEECH.copy()
    pcm[:number] = np.where(np.arange(number) % 2, 32767, -32768)
    return pcm


def test_noise_is_no_speech() -> None:
    assert judged(SEEN, "Red.", NOISE) == ("it sounds like noise",)
    assert judged(SEEN, "Red.", NOISE, is_babbling=True) == ()
    assert judged(SEEN, "Red.", NOISE, has_voice=False) == ()


def test_recorded_speech_and_white_noise_are_far_apart() -> None:
    spoken = [read_wav(path) for path in (ROOT / "tests" / "fixtures").glob("*.wav")]
    assert len(spoken) > 3
    for pcm in spoken:
        assert 0 < flatness((32767 * pcm).astype(np.int16)) < 0.4 * NOISE_FLATNESS
    for length in (4800, 24_000, 240_000):
        assert flatness(NOISE[:length]) > 8 * NOISE_FLATNESS
    assert flatness(NOISE // 1000) > 5 * NOISE_FLATNESS
    assert flatness(NOISE[:479]) == flatness(0 * NOISE) == 0.0
    assert flatness(NOISE + np.int16(5000)) > 8 * NOISE_FLATNESS


def found(**changes: Any) -> Finding:
    usual: dict[str, Any] = {
        "question": SEEN,
        "text": " Red.",
        "audio_s": 2.0,
        "level_dbfs": -20.0,
        "flatness": 0.01,
        "took_s": 0.5,
        "first_pcm_ms": 40.0,
        "faults": (),
    }
    return Finding(**(usual | changes))


def test_a_finding_is_described() -> None:
    told = describe(found(), is_babbling=False).splitlines()
    assert told[2:] == [
        "answer: 'Red.'",
        "verdict: right",
        "speech: 2.00 s at -20.0 dBFS, flatness 0.010, first samples after 40 ms, RTF 0.250",
    ]
    told = describe(found(faults=("a", "b"), audio_s=0.0), is_babbling=True).splitlines()
    assert told[2:] == ["answer: 'Red.'", "verdict: a; b"]


@pytest.mark.parametrize(
    ("changes", "is_babbling", "has_voice", "told"),
    [
        ({}, False, True, "It hears, sees and speaks."),
        ({}, False, False, "It hears and sees; it has no voice."),
        ({"flatness": 0.2}, True, True, "it loads, answers and sounds, like noise, but"),
        ({}, True, True, "it loads, answers and sounds but"),
        ({"audio_s": 0.0}, True, False, "it loads and answers but"),
        ({"faults": ("a", "b")}, True, True, "1 of 2 answers have faults."),
        ({"faults": ("a",)}, False, True, "1 of 2 answers have faults."),
    ],
)
def test_the_last_line_follows_from_the_findings(
    changes: dict[str, Any], is_babbling: bool, has_voice: bool, told: str
) -> None:
    findings = [found(), found(**changes)]
    concluded = conclude(findings, is_babbling=is_babbling, has_voice=has_voice)
    assert told in concluded
    assert "\n" not in concluded


def test_slow_speech_is_a_warning() -> None:
    findings = [found(took_s=2.6), found(), found(took_s=2.2)]
    warning, last = conclude(findings, is_babbling=False, has_voice=True).splitlines()
    assert warning == "Warning: speech is made slower than it lasts here (RTF up to 1.30)."
    assert last == "It hears, sees and speaks."


def test_levels() -> None:
    assert level_dbfs(np.full(10, -32768, np.int16)) == pytest.approx(0.0)
    assert level_dbfs(np.full(10, 3277, np.int16)) == pytest.approx(-20.0, abs=0.01)
    assert level_dbfs(np.zeros(0, np.int16)) == float("-inf")
