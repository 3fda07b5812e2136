"""The engine at its edges: replies without words, options out of range, empty contexts, failures in
the middle of a step. Each case once stopped a conversation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_rig import GREEDY, Collected, Rig, load_for_engine
from oracle import Oracle

from models.content import Audio, Message, ReplyOptions, Text
from models.encoding import WindowPolicy
from models.errors import RequestError
from models.qwen3_omni.model import Qwen3Omni
from models.scheduler import MAX_HELD_FRAMES

INSTRUCTIONS = "2610 525 264"
QUESTION = Message(role="user", parts=(Text(text="1000 1001 1002 1003"),))
WINDOWS = WindowPolicy(audio_window_s=1, camera_window_s=1)


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


@pytest.fixture
def rig(model: Qwen3Omni, oracle: Oracle) -> Rig:
    return make_rig(model, oracle)


def make_rig(model: Qwen3Omni, oracle: Oracle) -> Rig:
    rig = Rig(model, oracle, frames=8, windows=WINDOWS)
    rig.engine.open(1, instructions=INSTRUCTIONS, voice=None)
    return rig


def noise(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.3 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


# ------------------------------------------------------------------ replies without words
def test_a_reply_of_one_cut_token_ends(rig: Rig) -> None:
    rig.engine.append_message(1, QUESTION)
    reply = rig.ask(1, 1, ReplyOptions(greedy=True, max_tokens=1))
    assert reply.end is not None
    assert reply.end.status == "incomplete"
    assert not reply.codes


def test_a_reply_that_is_over_at_once_ends(rig: Rig) -> None:
    maker = rig.engine._maker
    every_id = frozenset(range(200_000))
    maker._generation = replace(
        maker._generation, thinker=replace(maker._generation.thinker, eos_ids=every_id)
    )
    rig.engine.append_message(1, QUESTION)
    reply = rig.ask(1, 1)
    assert reply.end is not None
    assert reply.end.status == "completed"
    assert not reply.ids


def test_of_a_reply_cut_before_its_first_word_nothing_stays(rig: Rig) -> None:
    rig.engine.append_message(1, QUESTION)
    rig.drain()
    before = rig.engine.log_ids(1)
    rig.engine.respond(1, 1, ReplyOptions(greedy=True, audio=False))
    rig.step()
    rig.engine.cancel(1)
    rig.drain()
    assert rig.engine.log_ids(1) == before
    rig.engine.respond(1, 2, GREEDY)
    rig.step()
    assert rig.engine.heard(2, 0) == ""
    rig.drain()
    assert rig.engine.log_ids(1) == before


def test_of_an_unheard_text_reply_nothing_stays(rig: Rig) -> None:
    rig.engine.append_message(1, QUESTION)
    rig.drain()
    before = rig.engine.log_ids(1)
    options = ReplyOptions(greedy=True, audio=False, max_tokens=8)
    rig.engine.respond(1, 1, options, speculative=True)
    rig.drain()
    rig.engine.cancel(1)
    rig.drain()
    assert rig.engine.log_ids(1) == before


# ------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    "options",
    [
        ReplyOptions(temperature=-1.0),
        ReplyOptions(temperature=float("nan")),
        ReplyOptions(seed=10**30),
        ReplyOptions(seed=-1),
    ],
)
def test_refused_options_leave_the_context_free(rig: Rig, options: ReplyOptions) -> None:
    rig.engine.append_message(1, QUESTION)
    with pytest.raises(RequestError):
        rig.engine.respond(1, 1, options)
    assert len(rig.ask(1, 2).ids) == 8


@pytest.mark.parametrize("time_s", [float("nan"), float("inf")])
def test_a_frame_without_a_time_is_refused(rig: Rig, time_s: float) -> None:
    rig.engine.begin_speech(1, has_camera=True)
    with pytest.raises(RequestError, match="number of seconds"):
        rig.engine.append_frame(1, np.zeros((32, 32, 3), np.uint8), time_s=time_s)


# ------------------------------------------------------------------ marks, replays, the camera
def test_a_mark_right_after_the_start_of_speech(rig: Rig) -> None:
    rig.engine.begin_speech(1, has_camera=False)
    rig.engine.set_mark(1, 1)
    rig.engine.append_audio(1, noise(1.5))
    rig.drain()
    rig.engine.rollback(1, 1)
    rig.engine.end_speech(1)
    reply = rig.ask(1, 1)
    assert reply.end is not None
    assert reply.end.usage.input_audio_tokens == 0


def test_instructions_may_go_before_anything_was_said(rig: Rig) -> None:
    rig.drain()
    rig.engine.configure(1, instructions="", voice=None)
    rig.drain()
    assert rig.engine.log_ids(1) == []


def test_instructions_may_go_during_a_reply(model: Qwen3Omni, oracle: Oracle) -> None:
    replies: list[Collected] = []
    for instructions in (INSTRUCTIONS, ""):
        rig = make_rig(model, oracle)
        rig.engine.append_message(1, QUESTION)
        rig.engine.respond(1, 1, GREEDY)
        for _ in range(5):
            rig.step()
        rig.engine.configure(1, instructions=instructions, voice=None)
        rig.drain()
        replies.append(rig.replies[1])
    assert replies[0].ids == replies[1].ids


def test_more_may_have_been_heard_than_was_said_first(model: Qwen3Omni, oracle: Oracle) -> None:
    logs, replies = [], []
    for reports in ((1365 + 1920, 1365 + 3 * 1920), (1365 + 3 * 1920,)):
        rig = make_rig(model, oracle)
        rig.engine.append_message(1, QUESTION)
        rig.ask(1, 1)
        rig.engine.append_message(1, QUESTION)
        for num_samples in reports:
            rig.engine.heard(1, num_samples)
            rig.drain()
        replies.append(rig.ask(1, 2))
        logs.append(rig.engine.log_ids(1))
    assert logs[0] == logs[1]
    assert replies[0].ids == replies[1].ids
    assert replies[0].codes == replies[1].codes


def test_a_camera_that_shows_nothing_leaves_plain_speech(rig: Rig) -> None:
    rig.engine.begin_speech(1, has_camera=True)
    rig.engine.append_audio(1, noise(0.5))
    rig.engine.end_speech(1)
    rig.engine.open(2, instructions=INSTRUCTIONS, voice=None)
    rig.engine.append_message(2, Message(role="user", parts=(Audio(pcm=noise(0.5)),)))
    rig.drain()
    assert rig.engine.log_ids(1) == rig.engine.log_ids(2)


# ------------------------------------------------------------------ failures
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_is_too_long_behind_a_reply_does_not_lose_its_end(
    rig: Rig, is_cancelled: bool
) -> None:
    rig.engine.append_message(1, QUESTION)
    rig.engine.respond(1, 1, GREEDY)
    for _ in range(6):
        rig.step()
    context = rig.engine._contexts[1]
    context.max_tokens = len(context.log) + 20
    rig.engine.append_message(1, Message(role="user", parts=(Text(text="1000 " * 50),)))
    rig.engine._encoder.encode_next(context)
    if is_cancelled:
        rig.engine.cancel(1)
    rig.drain()
    end = rig.replies[1].end
    assert end is not None
    assert end.status == ("cancelled" if is_cancelled else "incomplete")
    assert "full" in rig.faults[0]


def test_a_failure_in_the_talker_keeps_the_caches_in_step(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = rig.engine._contexts[1]
    rig.engine.append_message(1, QUESTION)
    assert context.talker_cache is not None
    with monkeypatch.context() as broken:
        broken.setattr(context.talker_cache, "append", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            rig.drain()
    assert context.thinker_cache.length == context.talker_cache.length == 0
    rig.drain()
    assert context.talker_cache.length == context.log.talker_length > 0


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("none left")


def test_an_ended_reply_keeps_no_voice(rig: Rig) -> None:
    rig.engine.append_message(1, QUESTION)
    rig.ask(1, 1)
    assert rig.engine._replies[1].voice is None


def test_an_unconfirmed_reply_makes_a_few_frames_only(rig: Rig) -> None:
    rig.engine.append_message(1, QUESTION)
    rig.engine.respond(1, 1, GREEDY, speculative=True)
    rig.drain()
    assert rig.replies == {}
    assert len(rig.engine._replies[1].frame_ends) == MAX_HELD_FRAMES
    rig.engine.confirm(1)
    rig.drain()
    assert len(rig.replies[1].codes) > MAX_HELD_FRAMES
    assert rig.replies[1].end is not None
