"""Sixteen sessions with the embedded model on an imagined machine: nobody waits, all are answered
rightly, and each as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from torch import Tensor

from models.chat import ChatFormat
from models.config import read_config
from models.content import AudioEvent, EndEvent, EngineEvent, Message, ReplyOptions, Text, TextEvent
from models.engine import Engine, EngineOptions
from models.generation import read_generation
from models.hub import resolve_checkpoint
from models.loading import load_placed
from models.placement import Placement
from models.recipe.phrases import NUMBERS
from models.replying import Frame, OwnReply
from models.scheduler import Unit

NUM_SESSIONS = 16
# What work costs there, in seconds: of a batch and of each reply in it; of each token; of a window.
STEP_S = {"token": (0.002, 0.001), "frame": (0.008, 0.002)}
PREFILL_TOKEN_S = 0.0002
OTHER_S = {"encode": 0.006, "place": 0.0002, "read": 0.006}
FIRST_SOUND_S = 0.1
PAUSE_S = 0.12  # between one session's question and the next one's
GREEDY = ReplyOptions(greedy=True, max_tokens=40)


@dataclass(slots=True)
class Answer:
    """What came of one reply, and when its first sound did."""

    text: str = ""
    codes: list[tuple[int, ...]] = field(default_factory=list)
    first_sound_s: float | None = None
    end: EndEvent | None = None


class Machine:
    """The engine by a clock of its own, which each unit of work moves on."""

    def __init__(self, max_batch: int) -> None:
        folder = resolve_checkpoint("embedded")
        config = read_config(folder)
        self.now_s = 0.0
        self.answers: dict[int, Answer] = {}
        self.engine = Engine(
            model=load_placed(folder, config, Placement(device="cpu", dtype="float32")),
            config=config,
            chat=ChatFormat.load(folder, config),
            generation=read_generation(folder, config),
            folder=folder,
            options=EngineOptions(max_batch=max_batch),
            clock=lambda: self.now_s,
        )
        for key in range(NUM_SESSIONS):  # later ones would be refused where others run dry
            self.engine.open(key, instructions="", voice=None)
        self._watch()

    def ask(self, key: int, text: str) -> None:
        self.engine.append_message(key, Message(role="user", parts=(Text(text=text),)))
        self.engine.respond(key, key, GREEDY)
        self.answers[key] = Answer()

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            if not self.step():
                self.now_s = until_s

    def step(self) -> bool:
        """One unit of work; False: there is none."""
        if not self.engine.has_work:
            return False
        self._take(self.engine.step())
        return True

    def late_frames(self) -> list[int]:
        ends = [answer.end for answer in self.answers.values()]
        return [end.stages.late_frames for end in ends if end is not None]

    def _take(self, events: Iterable[EngineEvent]) -> None:
        for event in events:
            match event:
                case TextEvent():
                    self.answers[event.response].text += event.text
                case AudioEvent():
                    answer = self.answers[event.response]
                    answer.codes.append(event.codes)
                    if answer.first_sound_s is None:
                        answer.first_sound_s = self.now_s
                case EndEvent():
                    self.answers[event.response].end = event

    def _watch(self) -> None:
        """Let every unit cost its time."""
        work, maker = self.engine._work, self.engine._maker
        do, feed, make = work.do, maker.feed_tokens, maker.make_frames

        def doing(unit: Unit) -> None:
            context = self.engine._contexts[unit.context]
            before = context.thinker_cache.length
            do(unit)
            if unit.kind == "prefill":
                self.now_s += (context.thinker_cache.length - before) * PREFILL_TOKEN_S
            self.now_s += OTHER_S.get(unit.kind, 0.0)

        def feeding(replies: Sequence[OwnReply]) -> list[int | Tensor | None]:
            self._spend("token", len(replies))
            return feed(replies)

        def making(replies: Sequence[OwnReply]) -> list[Frame | None]:
            self._spend("frame", len(replies))
            return make(replies)

        work.do = doing  # type: ignore[method-assign]
        maker.feed_tokens, maker.make_frames = feeding, making  # type: ignore[method-assign]

    def _spend(self, kind: str, size: int) -> None:
        fixed_s, each_s = STEP_S[kind]
        self.now_s += fixed_s + size * each_s


def question(key: int) -> tuple[str, str]:
    """A sum of its own for each session, and the answer."""
    a, b = key % 8 + 1, key // 8 + 2
    return (
        f"what is {NUMBERS[a]} plus {NUMBERS[b]}",
        f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} is {NUMBERS[a + b]}.",
    )


@pytest.fixture(scope="module")
def machine() -> Machine:
    """After sixteen sessions have asked, 120 ms apart, while another one speaks to it all along."""
    made = Machine(max_batch=8)
    listener = NUM_SESSIONS
    made.engine.open(listener, instructions="", voice=None)
    made.engine.begin_speech(listener, has_camera=False)
    noise = np.random.default_rng(0).normal(0, 0.01, 16_000 * 20).astype(np.float32)
    for key in range(NUM_SESSIONS):
        made.ask(key, question(key)[0])
        chunk = len(noise) // NUM_SESSIONS
        made.engine.append_audio(listener, noise[key * chunk :][:chunk])
        made.run(made.now_s + PAUSE_S)
    while made.step():
        pass
    return made


def test_all_are_answered_rightly_and_nobody_runs_dry(machine: Machine) -> None:
    texts = [answer.text for answer in machine.answers.values()]
    right = [question(key)[1] for key in range(NUM_SESSIONS)]
    assert sum(text == wanted for text, wanted in zip(texts, right, strict=True)) >= 14, texts
    assert machine.late_frames() == [0] * NUM_SESSIONS
    spoken = [len(answer.codes) for answer in machine.answers.values()]
    assert min(spoken) > 8


def test_first_sounds_overtake_the_frames_of_others(machine: Machine) -> None:
    for key, answer in machine.answers.items():
        assert answer.first_sound_s is not None
        stages = answer.end.stages if answer.end else None
        assert stages is not None
        assert stages.first_pcm is not None
        assert stages.first_pcm < 1000 * FIRST_SOUND_S, key


def test_one_at_a_time_the_same_sessions_run_dry(machine: Machine) -> None:
    alone = Machine(max_batch=1)
    for key in range(NUM_SESSIONS):
        alone.ask(key, question(key)[0])
        alone.run(alone.now_s + PAUSE_S)
    while alone.step():
        pass
    assert sum(alone.late_frames()) > 16
    for key, answer in alone.answers.items():  # and what they hear is the same
        assert answer.text == machine.answers[key].text
        assert answer.codes == machine.answers[key].codes
