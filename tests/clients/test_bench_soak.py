"""`omnid bench soak`: what counts as growth, what a look sees, a short soak of a real server."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clients.bench import soak, soak_user
from clients.bench.errors import BenchError
from clients.bench.footprint import Footprint, gauge, growth, look
from clients.bench.microphone import Microphone
from clients.bench.speech import Speech

METRICS = """# HELP omnid_sessions Sessions that are open.
omnid_sessions{transport="webrtc"} 2.0
omnid_sessions{transport="websocket"} 1.0
omnid_sessions_started_total{transport="websocket"} 9.0
omnid_tasks 7.0
"""
BEFORE = Footprint(memory_mib=1000.0, num_processes=2, num_threads=20, num_fds=30, num_tasks=5)


def test_a_gauge_is_summed_over_its_labels() -> None:
    assert gauge(METRICS, "omnid_sessions") == 3.0
    assert gauge(METRICS, "omnid_tasks") == 7.0
    assert gauge(METRICS, "omnid_none") == 0.0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"memory_mib": 1101.0}, "memory"),
        ({"num_processes": 3}, "processes"),
        ({"num_threads": 29}, "threads"),
        ({"num_fds": 37}, "fds"),
        ({"num_tasks": 8}, "tasks"),
    ],
)
def test_growth_is_named(change: dict[str, Any], what: str) -> None:
    (line,) = growth(BEFORE, replace(BEFORE, **change))
    assert line.startswith(f"{what}: ")


def test_a_sound_server_varies_a_little() -> None:
    after = replace(BEFORE, memory_mib=1090.0, num_threads=25, num_fds=28, num_tasks=6)
    assert growth(BEFORE, after) == []
    assert growth(replace(BEFORE, memory_mib=100.0), replace(BEFORE, memory_mib=140.0)) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_a_look_sees_threads_and_descriptors() -> None:
    before = look(os.getpid(), METRICS)
    assert before.memory_mib > 10
    assert before.num_tasks == 7
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with Path(os.devnull).open(), Path(os.devnull).open():
            after = look(os.getpid(), METRICS)
    finally:
        stop.set()
        thread.join()
    assert after.num_threads == before.num_threads + 1
    assert after.num_fds == before.num_fds + 2


def test_no_such_process() -> None:
    with pytest.raises(BenchError, match="no process"):
        look(2**30, METRICS)


async def test_a_user_whose_sound_nobody_takes_any_more_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As over a connection that broke while he spoke: he hung for ever, and the soak with him."""
    monkeypatch.setattr(soak_user, "TAKEN_S", 0.05)
    peer = SimpleNamespace(microphone=Microphone(48_000))
    speech = Speech(name="words", pcm=np.ones(480, np.int16), end=480)
    with pytest.raises(TimeoutError):
        await soak_user._say(peer, speech)  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_a_short_soak(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SETTLE_S", 0.2)
    monkeypatch.setattr("clients.bench.soak_user.DROPS", 0.0)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    parser = argparse.ArgumentParser()
    soak.add_arguments(parser)
    flags = ["--minutes", "0.02", "--warm-up", "0", "--sessions", "1", "--transport", "ws"]
    assert soak.run(parser.parse_args(flags)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["turns"] >= 1
    assert report["counts"]["ws sessions"] == 1
    assert report["grew"] == []
    assert report["after"]["num_tasks"] <= report["before"]["num_tasks"] + 2
