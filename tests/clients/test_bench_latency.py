"""`omnid bench latency` against a fake server over real sockets, WebSocket and WebRTC."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from clients.bench.latency import add_arguments, run
from clients.bench.measure import STAGES

pytestmark = pytest.mark.timeout(60)


def bench(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(flags))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return out


@pytest.mark.parametrize("transport", ["ws", "webrtc"])
def test_measures_turns(
    fake_server: Any,
    fixtures: Path,
    camera_y4m: Path,
    capsys: pytest.CaptureFixture[str],
    transport: str,
) -> None:
    fake_server.script.delay_s = 0.2
    wav, camera = str(fixtures / "speech_count.wav"), str(camera_y4m)
    flags = [
        "--transport",
        transport,
        "--turns",
        "2",
        "--audio",
        wav,
        "--camera",
        camera,
        "--json",
        "-",
    ]
    assert bench("--url", fake_server.url, *flags) == 0
    report = last_json(capsys)
    summary = report["summary"]
    assert (summary["turns_ok"], summary["turns_failed"]) == (2, 0)
    # 200 ms of silence and 200 ms of thinking, less what fades at both ends; what the machine adds
    # is no matter here
    assert summary["first_audio_ms"]["p50"] > 350
    assert tuple(summary["stages_ms"]) == STAGES
    assert summary["stages_ms"]["first_codec"] == 15.0
    assert isinstance(summary["underruns_per_min"], float)  # the rules are test_bench_measure's
    assert report["server"]["checkpoint"] == "fake"
    assert report["server"]["commit"] == "abc123"
    assert report["turns"][0]["transcript"] == "one two three"
    assert report["turns"][0]["reply_s"] == pytest.approx(0.6, abs=0.1)
    if transport == "webrtc":
        assert len(fake_server.seen.colours) > 5
        assert fake_server.seen.hangups == 1
    else:
        pictures = [e for e in fake_server.seen.events if e["type"] == "conversation.item.create"]
        assert len(pictures) == 2


def test_a_bad_network_between(
    fake_server: Any, fixtures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wav = str(fixtures / "speech_count.wav")
    flags = ["--url", fake_server.url, "--turns", "1", "--audio", wav, "--json", "-"]
    assert bench(*flags, "--network", "loss 1 %") == 0
    report = last_json(capsys)
    assert report["settings"]["network"] == "loss 1 %"
    assert report["summary"]["first_audio_ms"]["p50"] > 200 + 40, "both ways take 20 ms at least"
    assert bench(*flags, "--network", "loss 1 %", "--transport", "ws") == 1
    assert "--network" in capsys.readouterr().err


def test_leading_silence_and_gaps_are_heard(
    fake_server: Any, fixtures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_server.script.lead_silence_s = 0.3
    fake_server.script.gap_s = 0.9
    wav = str(fixtures / "speech_colour.wav")
    flags = ["--transport", "ws", "--turns", "1", "--audio", wav, "--json", "-"]
    assert bench("--url", fake_server.url.replace("http", "ws") + "/v1", *flags) == 0
    summary = last_json(capsys)["summary"]
    assert summary["first_audio_ms"]["p50"] > 540
    assert summary["underruns_per_min"] > 10


def test_several_sessions(fake_server: Any, fixtures: Path, tmp_path: Path) -> None:
    wav, target = str(fixtures / "speech_count.wav"), tmp_path / "numbers.json"
    flags = [
        "--transport",
        "ws",
        "--turns",
        "1",
        "--sessions",
        "3",
        "--audio",
        wav,
        "--json",
        str(target),
    ]
    assert bench("--url", fake_server.url, *flags) == 0
    report = json.loads(target.read_text())
    assert [turn["session"] for turn in report["turns"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"is_mute": True}, "timeout: no reply within 1 s"),
        ({"status": "failed"}, "the reply failed: out of order"),
    ],
)
def test_failed_turns_are_counted_and_explained(
    fake_server: Any,
    fixtures: Path,
    capsys: pytest.CaptureFixture[str],
    fault: dict[str, Any],
    words: str,
) -> None:
    for name, value in fault.items():
        setattr(fake_server.script, name, value)
    wav = str(fixtures / "speech_count.wav")
    flags = ["--transport", "ws", "--turns", "1", "--timeout-s", "1", "--audio", wav, "--json", "-"]
    assert bench("--url", fake_server.url, *flags) == 1
    report = last_json(capsys)
    assert report["summary"]["turns_failed"] == 1
    assert report["turns"][0]["reason"] == words


@pytest.mark.parametrize("transport", ["ws", "webrtc"])
def test_absent_server_is_one_line(capsys: pytest.CaptureFixture[str], transport: str) -> None:
    assert bench("--url", "http://127.0.0.1:9", "--transport", transport) == 1
    error = capsys.readouterr().err
    assert "no server at 127.0.0.1:9" in error
    assert len(error.strip().splitlines()) == 1


def test_refused_key_and_bad_flags_are_one_line(
    fake_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_server.script.key = "sesame"
    assert bench("--url", fake_server.url, "--turns", "1") == 1
    assert "status 401: Incorrect API key" in capsys.readouterr().err
    assert bench("--url", "gopher://x", "--turns", "1") == 1
    assert bench("--url", fake_server.url, "--audio", "/nowhere.wav") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
