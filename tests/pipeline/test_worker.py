"""The law of the engine's side: each reply ends exactly once, whatever is called in any order."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CheckpointError, OverloadedError
from pipeline import messages as port
from pipeline import worker
from pipeline.messages import Answer, Call, ResponseEnded

spec = importlib.util.spec_from_file_location(
    "scripted_core_of_worker", Path(__file__).with_name("scripted_core.py")
)
assert spec is not None
assert spec.loader is not None
scripted = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = scripted
spec.loader.exec_module(scripted)


class Batches:
    """In place of a `CallQueue`: what waits each time the loop looks."""

    def __init__(self, batches: list[list[Call]]) -> None:
        self._batches: Iterator[list[Call]] = iter(batches)

    def take_all(self, *, wait: bool) -> list[Call] | None:
        return next(self._batches, None)


def answers_to(batches: list[list[Call]], core: Any = None) -> list[Answer]:
    answers: list[Answer] = []
    loop = worker.EngineLoop(core or scripted.ScriptedCore(), answers.append)
    loop.run(Batches(batches))  # type: ignore[arg-type]
    return answers


def text(words: str) -> port.Message:
    return port.Message(role="user", parts=(port.TextPart(text=words),))


CONTEXTS = st.integers(1, 2)
RESPONSES = st.integers(10, 14)
CALLS: st.SearchStrategy[Call] = st.one_of(
    st.builds(
        port.Open,
        context=CONTEXTS,
        instructions=st.just("frames=2"),
        voice=st.sampled_from([None, "anna", "nobody"]),
    ),
    st.builds(port.AppendAudio, context=CONTEXTS, pcm=st.just(np.zeros(4, np.float32))),
    st.builds(
        port.AppendMessage,
        context=CONTEXTS,
        message=st.sampled_from(["hi", "refuse", "crash-call", "oom-call", "oom-step"]).map(text),
    ),
    st.builds(port.SetMark, context=CONTEXTS, mark=st.just(1)),
    st.builds(port.Confirm, response=RESPONSES),
    st.builds(port.Cancel, response=RESPONSES),
    st.builds(port.Heard, response=RESPONSES, num_samples=st.integers(0, 9000)),
    st.builds(port.Close, context=CONTEXTS),
)


@st.composite
def stories(draw: st.DrawFn) -> list[list[Call]]:
    """Calls in batches, with each response id used once, and all contexts closed at the end."""
    calls = draw(st.lists(CALLS, max_size=25))
    for response in draw(st.lists(RESPONSES, unique=True)):
        call = port.Respond(
            context=draw(CONTEXTS),
            response=response,
            options=port.ResponseOptions(max_tokens=draw(st.sampled_from([None, 0]))),
            speculative=draw(st.booleans()),
        )
        calls.insert(draw(st.integers(0, len(calls))), call)
    batches: list[list[Call]] = [[]]
    for call in calls:
        batches[-1].append(call)
        batches.extend([] for _ in range(draw(st.integers(0, 2))))
    return [*batches, [port.Close(context=1), port.Close(context=2)], []]


@settings(max_examples=200, deadline=None)
@given(stories())
def test_each_reply_ends_once_and_nothing_follows(batches: list[list[Call]]) -> None:
    calls = [call for batch in batches for call in batch]
    core = scripted.ScriptedCore()
    answers = answers_to(batches, core)
    ended = [answer.response for answer in answers if isinstance(answer, ResponseEnded)]
    asked = [call.response for call in calls if isinstance(call, port.Respond)]
    assert sorted(ended) == sorted(asked)
    for index, answer in enumerate(answers):
        if isinstance(answer, port.TextDelta | port.AudioDelta):
            assert answer.response not in {
                before.response for before in answers[:index] if isinstance(before, ResponseEnded)
            }
    num_heard = sum(isinstance(call, port.Heard) for call in calls)
    assert sum(isinstance(answer, port.HeardText) for answer in answers) == num_heard
    assert not core.contexts
    assert not core.replies


def test_out_of_memory_sheds_the_newest_that_speaks() -> None:
    respond = [
        port.Respond(context=context, response=10 + context, options=port.ResponseOptions())
        for context in (1, 2)
    ]
    opened = [port.Open(context=c, instructions="frames=2", voice=None) for c in (1, 2, 3)]
    poison = port.AppendMessage(context=1, message=text("oom-step"))
    answers = answers_to([[*opened, poison, *respond], [], [], []])
    faults = [answer for answer in answers if isinstance(answer, port.ContextFault)]
    assert [(fault.context, fault.is_lost) for fault in faults] == [(2, True), (1, True)]
    assert "out of memory" in faults[0].error
    ends = [answer for answer in answers if isinstance(answer, ResponseEnded)]
    assert {end.refusal for end in ends} == {"overloaded"}


def test_a_reply_in_a_context_that_was_refused_says_by_what() -> None:
    class FullCore(scripted.ScriptedCore):
        def open(self, context: int, **_: Any) -> None:
            raise OverloadedError("the engine is at its limit")

    opened = port.Open(context=1, instructions="", voice=None)
    respond = port.Respond(context=1, response=10, options=port.ResponseOptions())
    (fault, ended) = answers_to([[opened, respond], []], FullCore())
    assert isinstance(fault, port.ContextFault)
    assert (fault.is_lost, fault.refusal) == (True, "overloaded")
    assert isinstance(ended, ResponseEnded)
    assert (ended.status, ended.refusal) == ("failed", "overloaded")
    assert ended.error == "the engine is at its limit"


def test_another_exception_in_a_step_is_the_end() -> None:
    opened = port.Open(context=1, instructions="", voice=None)
    poison = port.AppendMessage(context=1, message=text("crash-step"))
    respond = port.Respond(context=1, response=10, options=port.ResponseOptions())
    with pytest.raises(ZeroDivisionError):
        answers_to([[opened, poison, respond], []])


def test_messages_are_translated_whole() -> None:
    rgb = np.zeros((2, 2, 3), np.uint8)
    pcm = np.zeros(3, np.float32)
    parts = (
        port.TextPart(text="a"),
        port.ImagePart(rgb=rgb),
        port.AudioPart(pcm=pcm, frames=(port.Frame(rgb=rgb, time_s=0.5),)),
    )
    seen: list[Any] = []
    core = scripted.ScriptedCore()
    core.append_message = lambda context, message: seen.append(message)
    opened = port.Open(context=1, instructions="", voice=None)
    message = port.Message(role="user", parts=parts)
    answers_to([[opened, port.AppendMessage(context=1, message=message)]], core)
    found, image, audio = seen[0].parts
    assert (seen[0].role, found.text) == ("user", "a")
    assert image.rgb is rgb
    assert audio.pcm is pcm
    assert audio.frames == ((0.5, rgb),)


# ------------------------------------------------------------------------------- checkpoints
def give_module(
    monkeypatch: pytest.MonkeyPatch, name: str, **functions: Callable[..., Any]
) -> None:
    module = types.ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def test_the_tiny_checkpoint_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Path] = []

    def write(folder: Path) -> None:
        made.append(folder)
        folder.mkdir(parents=True)
        (folder / "config.json").touch()

    give_module(monkeypatch, "models.tiny", write_tiny_checkpoint=write)
    for _ in range(2):
        assert worker.checkpoint_folder("tiny", tmp_path / "cache") == tmp_path / "cache" / "tiny"
    assert len(made) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_another_process_may_make_it_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool
) -> None:
    def write(folder: Path) -> None:
        if is_there:
            folder.mkdir()
            (folder / "config.json").touch()
        raise CheckpointError("the folder is taken")

    give_module(monkeypatch, "models.tiny", write_tiny_checkpoint=write)
    if is_there:
        assert worker.checkpoint_folder("tiny", tmp_path) == tmp_path / "tiny"
    else:
        with pytest.raises(CheckpointError):
            worker.checkpoint_folder("tiny", tmp_path)


def test_other_names_are_the_hubs_affair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give_module(monkeypatch, "models.hub", resolve_checkpoint=lambda name: tmp_path / name)
    assert worker.checkpoint_folder("some/model", tmp_path) == tmp_path / "some" / "model"


@pytest.mark.parametrize(("graphs", "by_steps"), [("auto", None), ("on", True), ("off", False)])
def test_what_is_set_reaches_the_engine(tmp_path: Path, graphs: str, by_steps: bool | None) -> None:
    options = worker.WorkerOptions(
        model="tiny", cache_folder=str(tmp_path), graphs=graphs, audio_window_s=1, camera_window_s=0
    )
    made = worker.engine_options(options)
    assert made.by_steps is by_steps
    assert (made.windows.audio_window_s, made.windows.camera_window_s) == (1, None)
    usual = worker.engine_options(worker.WorkerOptions(model="tiny", cache_folder=str(tmp_path)))
    assert (usual.windows.audio_window_s, usual.windows.camera_window_s) == (None, 2)
