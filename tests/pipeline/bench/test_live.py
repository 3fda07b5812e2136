"""A made user in real time: what it says is known to the block, what it hears to the word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from daemon.__main__ import main
from pipeline.bench import live_grid
from pipeline.bench.live import Life, LiveError
from pipeline.bench.measure import Tally
from pipeline.bench.report import figures
from pipeline.bench.scripted_engine import spoken_replies
from pipeline.bench.user import STEP_S, STEP_SAMPLES, Said, User
from pipeline.bench.words import words_heard
from pipeline.messages import Pcm
from pipeline.synthetic import voices
from pipeline.synthetic.sentences import TRAINING


class SlowUser:
    """Waits, thinks for long, speaks with a pause in which it thinks again."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def live(self) -> Generator[Pcm, bool, None]:
        quiet, loud = (np.full(STEP_SAMPLES, level, np.float32) for level in (0.001, 0.5))
        for number, block in enumerate([quiet] * 10 + [loud] * 5 + [quiet] * 5 + [loud] * 5):
            if number in (10, 20):
                time.sleep(0.2)
            yield block
        pauses = ((15 * STEP_S, 20 * STEP_S),)
        self.said.append(Said(sort="turn", on_s=10 * STEP_S, off_s=25 * STEP_S, pauses=pauses))


async def test_what_is_said_is_known_by_its_block_however_long_the_user_thinks() -> None:
    user: Any = SlowUser()
    life = Life(user)
    blocks = []
    while not life.is_over:
        blocks.append(life.next_block(is_audible=False))
        await asyncio.sleep(0.005)
    assert len(blocks) > 25, "the room is heard while it thinks"
    is_loud = np.array([block[0] > 0.1 for block in blocks])
    (said,) = life.said()
    ((pause_start, pause_end),) = said.pauses
    spans = [(said.on_s, pause_start), (pause_end, said.off_s)]
    told = np.zeros(len(blocks), bool)
    for start, end in spans:
        told[round(start / STEP_S) : round(end / STEP_S)] = True
    assert np.array_equal(told, is_loud)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_recogniser_counts_the_words_of_a_cut_reply() -> None:
    pytest.importorskip("pocketsphinx")
    reply = spoken_replies()[0]
    for share in (0.2, 0.5, 0.8):
        num_samples = round(share * len(reply.pcm))
        true = len(reply.text_at(num_samples).split())
        found = words_heard(reply.pcm[:num_samples], reply.text)
        assert found is not None
        assert abs(found - true) <= 1
    assert words_heard(reply.pcm, "Qwertzuiop.") is None


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_questions_take_the_place_of_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "TRAINING", (("flite", "rms"),))
    asked: list[str] = []
    say = voices.say

    def noted(text: str, voice: voices.Voice) -> voices.Clip:
        asked.append(text)
        return say(text, voice)

    monkeypatch.setattr(voices, "say", noted)
    user = User(seed=4, num_exchanges=6, pool=TRAINING, questions=("Who are you my friend?",))
    assert len(list(user.live())) > 100
    assert sum(said.sort == "turn" for said in user.said) == 6
    assert "Who are you my friend?" in asked


@pytest.fixture
def fake_line(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Calls through "clean" go well, those through "bursts" break."""
    line = SimpleNamespace(networks=["clean", "bursts"], server={}, is_alive=True)

    @contextlib.asynccontextmanager
    async def calling(**_: Any) -> AsyncIterator[Any]:
        yield line

    async def over(_line: Any, network: str, _args: Any) -> tuple[dict[str, Any], Any]:
        if network == "bursts":
            raise LiveError("3 calls broke")
        return figures(Tally()), None

    monkeypatch.setattr(live_grid, "calling", calling)
    monkeypatch.setattr(live_grid, "_over", over)
    return line


def test_what_was_measured_outlives_a_network_that_calls_break_in(
    fake_line: SimpleNamespace, capsys: Any
) -> None:
    arguments = ["bench", "conversation", "--live", "--networks", "clean,bursts", "--json", "-"]
    assert main(arguments) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)["setups"]
    assert found["clean"]["turns"] == 0
    assert found["bursts"] is None
    assert told.err.splitlines()[-1] == "omnid bench conversation: the calls broke: bursts"


def test_an_unknown_network_is_told_before_anybody_calls(
    fake_line: SimpleNamespace, capsys: Any
) -> None:
    assert main(["bench", "conversation", "--live", "--networks", "clean,foo"]) != 0
    assert "there is no 'foo'; there are clean, bursts" in capsys.readouterr().err
