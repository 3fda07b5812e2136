"""`omnid bench engine`: its figures are there and make sense, and its flags are checked."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models import devices
from models.commands import against, bench_engine, floor
from models.commands.bench import Bench
from models.commands.figures import Reply
from models.config import parse_config
from models.errors import RequestError, ResourceError
from models.qwen3_omni.model import Qwen3Omni
from models.sizes import FULL, SMALL
from models.tiny_config import tiny_config

DATA = Path(__file__).parent / "data"


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_engine.add_arguments(parser)
    return parser.parse_args(flags)


def test_figures_of_the_tiny_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(floor, "COPY_BYTES", 2**20)
    flags = ("--work", str(tmp_path), "--seconds", "0.8", "--turns", "2", "--sessions", "1,2")
    assert bench_engine.run(parsed(*flags, "--against", "transformers")) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out.splitlines()[-1])
    ours, theirs = report["ours"], report["transformers"]
    assert report["reply_s"] == pytest.approx(10 * 0.08, abs=0.03)
    assert report["equal"] == {"text": True, "codes": True}
    assert 0 < ours["first_audio_ms"] < ours["reply_ms"]
    assert theirs["first_audio_ms"] == theirs["reply_ms"]
    assert report["ratio"]["rtf"] == pytest.approx(theirs["rtf"] / ours["rtf"], rel=0.1)
    assert ours["rtf"] == pytest.approx(ours["reply_ms"] / 1000 / report["reply_s"], rel=0.1)
    floor_ms = report["floor"]["token_ms"] + report["floor"]["frame_ms"]
    assert ours["floor_reached"] == pytest.approx(floor_ms / ours["frame_ms"], rel=0.1)
    assert ours["tokens_left_at_turn_end"] > 0
    assert ours["turn2_over_turn1"] is None
    assert "turn2_over_turn1                         -" in printed.err
    assert report["num_replies"] == {"ours": 3, "transformers": 1}
    assert "ours is the fastest of 3 replies, transformers' of 1\n" in printed.err
    assert "text and codes are the reference's\n" in printed.err
    assert set(report["sessions"]) == {"1", "2"}
    gain = report["sessions"]["2"]
    assert gain["batching_gain"] == pytest.approx(
        gain["audio_s_per_s"] / gain["audio_s_per_s_one_by_one"], rel=0.1
    )


def test_the_fastest_reply_the_turns_and_both_ways_of_many_sessions_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the bench measures, here known beforehand."""
    monkeypatch.setattr(floor, "COPY_BYTES", 2**20)
    _, bench = bench_engine._loaded(parsed("--work", str(tmp_path), "--seconds", "0.16"))
    usual = bench.engine
    slow, fast, slower = (known_reply(total_ms) for total_ms in (500.0, 300.0, 600.0))
    replies = iter([known_reply(1.0), slow, fast, slower])  # the first one warms up
    turns = [known_reply(100.0 * number) for number in range(1, 13)]
    monkeypatch.setattr(bench, "one_reply", lambda num_tokens: next(replies))
    monkeypatch.setattr(bench, "long_conversation", lambda num: turns[:num])
    monkeypatch.setattr(
        bench, "together", lambda count: {"audio_s_per_s": 8.0 if bench.engine is usual else 2.0}
    )
    report = bench.report(floor.measure_floor(bench.model), turns=12, counts=[1, 4])
    assert report["ours"]["reply_ms"] == 300.0
    assert report["ours"]["turn12_over_turn1"] == pytest.approx(10 / 3, abs=1e-3)
    assert report["sessions"] == {
        "1": {"audio_s_per_s": 8.0},
        "4": {"audio_s_per_s": 8.0, "audio_s_per_s_one_by_one": 2.0, "batching_gain": 4.0},
    }


def known_reply(total_ms: float) -> Reply:
    return Reply(
        first_audio_ms=total_ms / 2,
        total_ms=total_ms,
        cpu_ms=total_ms,
        audio_s=0.16,
        tokens_left=33,
        text_ids=(),
        codes=((), ()),
    )


@pytest.mark.parametrize(("dtype", "exit_code"), [("float32", 1), ("bfloat16", 0)])
def test_a_reply_unlike_the_references_is_an_error_where_nothing_is_rounded(
    dtype: str,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unequal(bench: Bench, folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
        counts = {**report["num_replies"], "transformers": 1}
        equal = {"text": True, "codes": False}
        return {"num_replies": counts, "transformers": {}, "ratio": {}, "equal": equal}

    monkeypatch.setattr(floor, "COPY_BYTES", 2**20)
    monkeypatch.setattr(against, "measure_reference", unequal)
    flags = ("--work", str(tmp_path), "--seconds", "0.16", "--turns", "1", "--dtype", dtype)
    assert bench_engine.run(parsed(*flags, "--against", "transformers")) == exit_code
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["equal"]["codes"] is False
    assert "\ncodes differ from the reference's" in printed.err
    assert ("(as they may in bfloat16)" in printed.err) == (dtype == "bfloat16")


def test_shorter_windows_and_a_camera_change_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(floor, "COPY_BYTES", 2**20)
    flags = ("--work", str(tmp_path), "--seconds", "0.16", "--turns", "1")
    lefts = []
    for more in ((), ("--window", "1"), ("--window", "1", "--video")):
        assert bench_engine.run(parsed(*flags, *more)) == 0
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        lefts.append(report["ours"]["tokens_left_at_turn_end"])
    assert lefts[1] < lefts[0]
    assert lefts[1] < lefts[2]


def test_the_full_size_is_refused_where_it_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cpu_memory", lambda: (40 * 2**30, 40 * 2**30))
    flags = ("--work", str(tmp_path), "--model", "full", "--device", "cpu")
    with pytest.raises(ResourceError, match=r"133\.\d GiB are needed on cpu .*bfloat16 and.*int4"):
        bench_engine.run(parsed(*flags))
    monkeypatch.setattr(devices, "cpu_memory", lambda: (2**30, 2**30))
    with pytest.raises(ResourceError, match="no dtype and no packing"):
        bench_engine.run(parsed(*flags, "--dtype", "bfloat16", "--experts", "int4"))
    with pytest.raises(RequestError, match="no file for the reference"):
        bench_engine.run(parsed(*flags, "--against", "transformers"))


@pytest.mark.parametrize("experts", ["full", "int4"])
def test_random_weights_are_made_where_they_lie(
    experts: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The full size's way, at the tiny one's size."""
    monkeypatch.setattr(floor, "COPY_BYTES", 2**20)
    monkeypatch.setattr(bench_engine, "SIZES", {"tiny": {}, "full": {}})
    flags = ("--work", str(tmp_path), "--seconds", "0.16", "--turns", "1", "--model", "full")
    assert bench_engine.run(parsed(*flags, "--experts", experts)) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["reply_s"] == pytest.approx(2 * 0.08, abs=0.03)
    full_bytes = 4 * report["parameters"]
    assert (report["weight_bytes"] == full_bytes) == (experts == "full")
    assert report["weight_bytes"] <= full_bytes


def test_full_is_the_published_size() -> None:
    """But for what says that it babbles."""
    text = (DATA / "qwen3_omni_30b_config.json").read_text(encoding="utf-8")
    full = parse_config(tiny_config(FULL))
    assert replace(full, is_babbling=False) == parse_config(json.loads(text))


def test_experts_that_no_token_reads_are_not_counted() -> None:
    with torch.device("meta"):
        model = Qwen3Omni(parse_config(tiny_config({})))
    layer = model.thinker.model.layers[0]
    dense = floor._bytes_read(layer.self_attn) + layer.input_layernorm.weight.nbytes
    dense += layer.post_attention_layernorm.weight.nbytes + layer.mlp.gate.weight.nbytes
    chosen = sum(parameter.nbytes for parameter in layer.mlp.experts.parameters()) * 2 // 8
    assert floor._bytes_read(layer) == dense + chosen


def test_small_has_about_a_third_of_a_billion_parameters() -> None:
    with torch.device("meta"):
        model = Qwen3Omni(parse_config(tiny_config(SMALL)))
    assert 0.3e9 < sum(parameter.numel() for parameter in model.parameters()) < 0.4e9


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--sessions", "0", "must be a whole number from 1 to 1024, not 0"),
        ("--sessions", "1,a", "not a"),
        ("--sessions", "", "must be a whole number"),
        ("--sessions", "1,99999", "to 1024, not 99999"),
        ("--turns", "0", "must be a whole number from 1, not 0"),
        ("--seconds", "0", "must be a number from 0.16 to 600, not 0"),
        ("--seconds", "nan", "not nan"),
        ("--seconds", "inf", "not inf"),
        ("--seconds", "much", "not much"),
        ("--threads", "0", "must be a whole number from 1 to 4, not 0"),
        ("--threads", "5", "not 5"),
        ("--window", "0", "must be a whole number from 1, not 0"),
        ("--json", "nowhere/x.json", "there is no folder nowhere"),
        ("--json", "/", "must be a file, not '/'"),
        ("--json", "", "must be a file, not ''"),
    ],
)
def test_wrong_flags_are_told_before_any_work(
    flag: str,
    value: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with pytest.raises(SystemExit):
        parsed(flag, value)
    told = capsys.readouterr().err
    assert f"argument {flag}: " in told
    assert message in told


def test_a_file_that_can_not_be_written_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "x.json")
    assert parsed("--json", target).json == target
    assert not Path(target).exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit):
        parsed("--json", target)
    assert "x.json can not be written" in capsys.readouterr().err


def test_flags_that_do_not_go_together_are_told() -> None:
    with pytest.raises(RequestError, match="no reference"):
        bench_engine.run(parsed("--video", "--against", "transformers"))


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_a_window_longer_than_the_checkpoints_own_is_told(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_engine, "SIZES", {"tiny": {}, "full": {}})
    flags = ("--work", str(tmp_path), "--model", size, "--window", "3")
    with pytest.raises(RequestError, match="--window 3: the checkpoint's own window is 2 s"):
        bench_engine.run(parsed(*flags))


def test_figures_that_can_not_be_written_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError, match="can not write"):
        bench_engine._write(str(tmp_path / "nowhere" / "x.json"), {"rtf": 0.5})
    assert json.loads(capsys.readouterr().out) == {"rtf": 0.5}


@pytest.mark.parametrize(("graphs", "by_steps"), [("auto", None), ("on", True), ("off", False)])
def test_graphs_are_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs: str, by_steps: bool | None
) -> None:
    class AskedError(Exception):
        pass

    def around(*_: object, by_steps: bool | None, **__: object) -> None:
        raise AskedError(by_steps)

    monkeypatch.setattr(bench_engine.Bench, "around", around)
    with pytest.raises(AskedError) as asked:
        bench_engine.run(parsed("--model", "tiny", "--work", str(tmp_path), "--graphs", graphs))
    assert asked.value.args == (by_steps,)
