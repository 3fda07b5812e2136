"""The engine against the reference: whole replies, and the laws of streaming, rollback and
isolation.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_rig import GREEDY, Collected, Rig, load_for_engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import Oracle

from models.content import (
    Audio,
    AudioEvent,
    EngineEvent,
    Image,
    Message,
    Part,
    ReplyOptions,
    Text,
    TextEvent,
)
from models.encoding import WindowPolicy
from models.errors import RequestError
from models.qwen3_omni.model import Qwen3Omni

SYSTEM_TEXT = "2610 525 264"
QUESTION = Text(text="1000 1001 1002 1003")
LAWS = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


@pytest.fixture
def rig(model: Qwen3Omni, oracle: Oracle) -> Rig:
    return make_rig(model, oracle)


def make_rig(model: Qwen3Omni, oracle: Oracle, window_s: int | None = None) -> Rig:
    windows = WindowPolicy(audio_window_s=window_s, camera_window_s=window_s)
    return Rig(model, oracle, frames=8, windows=windows)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


def picture(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def opened(rig: Rig, context: int = 1) -> Rig:
    rig.engine.open(context, instructions=SYSTEM_TEXT, voice="Ethan")
    return rig


def same_reply(ours: Collected, other: Collected) -> None:
    assert ours.ids == other.ids
    assert ours.codes == other.codes
    np.testing.assert_allclose(ours.pcm, other.pcm, atol=2)


# ------------------------------------------------------------------ a reply
def test_text_equals_the_reference(rig: Rig, oracle: Oracle) -> None:
    opened(rig).engine.append_message(1, user(Text(text=" ".join(map(str, range(1000, 1012))))))
    reply = rig.ask(1, 1)
    ids, wav = oracle.generate("text", text_tokens=8, frames=8)
    assert reply.ids == [int(i) for i in ids[-8:]]
    np.testing.assert_allclose(reply.pcm / 32767, wav.numpy(), atol=1e-4)
    assert [len(chunk) for chunk in reply.chunks[:3]] == [1365, 1920, 1920]
    assert reply.end is not None
    assert reply.end.status == "incomplete"


def test_warming_up_leaves_no_trace(model: Qwen3Omni, oracle: Oracle, rig: Rig) -> None:
    warm = make_rig(model, oracle)
    made: list[EngineEvent] = []
    step = warm.engine.step
    warm.engine.step = lambda: made.extend(step()) or []  # type: ignore[method-assign, func-returns-value]
    warm.engine.warm_up()
    warm.engine.step = step  # type: ignore[method-assign]
    assert {TextEvent, AudioEvent} <= {type(event) for event in made}
    assert not warm.engine.has_work
    for each in (rig, warm):
        opened(each).engine.append_message(1, user(QUESTION))
        each.ask(1, 1)
    same_reply(warm.replies[1], rig.replies[1])


def test_stages_and_usage_are_told(rig: Rig) -> None:
    opened(rig).engine.append_message(1, user(Audio(pcm=noise(1.3)), QUESTION))
    rig.drain()
    reply = rig.ask(1, 1)
    assert reply.end is not None
    stages, usage = reply.end.stages, reply.end.usage
    assert 0 <= stages.prefill <= stages.first_text <= stages.first_codec <= stages.first_pcm
    assert stages.tokens_left == 3  # the assistant's header alone
    assert usage.input_audio_tokens == 17
    assert usage.output_text_tokens == 8
    assert usage.output_audio_tokens == len(reply.codes) == 7
    assert usage.cached_audio_tokens == 17
    assert usage.cached_tokens == usage.input_text_tokens + 17 - stages.tokens_left


def test_what_is_cached_is_told_by_kind(rig: Rig) -> None:
    """Of sound that was not read before the reply was asked for, none is."""
    opened(rig).engine.append_message(1, user(QUESTION, Image(rgb=picture(1))))
    rig.drain()
    rig.engine.append_message(1, user(Audio(pcm=noise(1.3))))
    reply = rig.ask(1, 1)
    assert reply.end is not None
    usage = reply.end.usage
    assert (usage.input_audio_tokens, usage.cached_audio_tokens) == (17, 0)
    assert usage.cached_image_tokens == usage.input_image_tokens > 0
    assert 0 < usage.cached_tokens - usage.cached_image_tokens < usage.input_text_tokens


def test_a_text_reply_has_no_voice(rig: Rig) -> None:
    opened(rig).engine.append_message(1, user(QUESTION))
    reply = rig.ask(1, 1, ReplyOptions(greedy=True, max_tokens=4, audio=False))
    assert len(reply.ids) == 4
    assert not reply.codes


# ------------------------------------------------------------------ streaming law
@LAWS
@given(cuts=st.lists(st.integers(1, 3_100 * 16), max_size=5), works=st.booleans())
def test_speech_in_pieces_equals_speech_at_once(
    model: Qwen3Omni, oracle: Oracle, cuts: list[int], works: bool
) -> None:
    pcm = noise(3.1)
    whole = speak(opened(make_rig(model, oracle, 1)), [pcm], works=False)
    pieces = np.split(pcm, sorted(cuts))
    same_reply(speak(opened(make_rig(model, oracle, 1)), pieces, works=works), whole)


def speak(rig: Rig, pieces: list[np.ndarray], *, works: bool) -> Collected:
    rig.engine.begin_speech(1, has_camera=False)
    for piece in pieces:
        rig.engine.append_audio(1, piece)
        if works:
            rig.drain()
    rig.engine.end_speech(1)
    return rig.ask(1, 1)


def test_short_speech_equals_the_clip(model: Qwen3Omni, oracle: Oracle) -> None:
    """Inside one window, live speech is normalised by its own maximum: the same as a known clip."""
    pcm = np.concatenate([np.zeros(5_000, np.float32), noise(1.2)])
    live = speak(opened(make_rig(model, oracle)), [pcm], works=True)
    rig = opened(make_rig(model, oracle))
    rig.engine.append_message(1, user(Audio(pcm=pcm)))
    same_reply(live, rig.ask(1, 1))


def test_speech_is_prefilled_while_it_lasts(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = opened(make_rig(model, oracle, 1))
    rig.engine.begin_speech(1, has_camera=False)
    rig.engine.append_audio(1, noise(5.05))
    rig.drain()
    rig.engine.end_speech(1)
    reply = rig.ask(1, 1)
    assert reply.end is not None
    assert reply.end.stages.tokens_left < 13


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.02, 0.95, 1.0, 2.0])
def test_speech_of_any_length_is_served(model: Qwen3Omni, oracle: Oracle, seconds: float) -> None:
    reply = speak(opened(make_rig(model, oracle, 1)), [noise(seconds)], works=True)
    assert len(reply.ids) == 8


# ------------------------------------------------------------------ camera
def test_live_camera_equals_the_finished_item(model: Qwen3Omni, oracle: Oracle) -> None:
    pcm, frames = noise(1.7), [(0.5 * i, picture(i)) for i in range(4)]
    live = opened(make_rig(model, oracle, 2))
    live.engine.begin_speech(1, has_camera=True)
    for start in range(0, len(pcm), 8_000):
        for time_s, rgb in frames:
            if start <= time_s * 16_000 < start + 8_000:
                live.engine.append_frame(1, rgb, time_s=time_s)
        live.engine.append_audio(1, pcm[start : start + 8_000])
        live.drain()
    live.engine.end_speech(1)
    rig = opened(make_rig(model, oracle))
    rig.engine.append_message(1, user(Audio(pcm=pcm, frames=tuple(frames))))
    same_reply(live.ask(1, 1), rig.ask(1, 1))


# ------------------------------------------------------------------ rollback law
def test_rollback_equals_never_having_appended(model: Qwen3Omni, oracle: Oracle) -> None:
    rig, plain = opened(make_rig(model, oracle, 1)), opened(make_rig(model, oracle, 1))
    for each in (rig, plain):
        each.engine.append_message(1, user(QUESTION))
    rig.engine.set_mark(1, 7)
    rig.engine.begin_speech(1, has_camera=False)
    rig.engine.append_audio(1, noise(2.5, seed=5))
    rig.drain()
    rig.engine.rollback(1, 7)
    for each in (rig, plain):
        each.engine.append_message(1, user(Audio(pcm=noise(1.1))))
    same_reply(rig.ask(1, 1), plain.ask(1, 1))


@pytest.mark.parametrize("kept_s", [0.3, 1.0, 2.2])
@pytest.mark.parametrize("is_closed", [False, True])
def test_rollback_inside_speech(
    model: Qwen3Omni, oracle: Oracle, kept_s: float, is_closed: bool
) -> None:
    rig, plain = opened(make_rig(model, oracle, 1)), opened(make_rig(model, oracle, 1))
    for each in (rig, plain):
        each.engine.begin_speech(1, has_camera=False)
        each.engine.append_audio(1, noise(kept_s))
    rig.engine.set_mark(1, 1)
    rig.engine.append_audio(1, noise(2.0, seed=9))
    if is_closed:
        rig.engine.end_speech(1)
    rig.drain()
    rig.engine.rollback(1, 1)
    for each in (rig, plain):
        each.engine.append_audio(1, noise(0.7, seed=3))
        each.drain()
        each.engine.end_speech(1)
    same_reply(rig.ask(1, 1), plain.ask(1, 1))


def test_a_cancelled_speculation_leaves_no_trace(model: Qwen3Omni, oracle: Oracle) -> None:
    rig, plain = opened(make_rig(model, oracle)), opened(make_rig(model, oracle))
    for each in (rig, plain):
        each.engine.append_message(1, user(Audio(pcm=noise(0.8))))
    rig.engine.respond(1, 5, GREEDY, speculative=True)
    for _ in range(9):
        assert rig.step() == []
    rig.engine.cancel(5)
    for each in (rig, plain):
        each.engine.append_message(1, user(QUESTION))
    same_reply(rig.ask(1, 1), plain.ask(1, 1))


def test_a_confirmed_speculation_equals_a_plain_reply(model: Qwen3Omni, oracle: Oracle) -> None:
    rig, plain = opened(make_rig(model, oracle)), opened(make_rig(model, oracle))
    for each in (rig, plain):
        each.engine.append_message(1, user(QUESTION))
    rig.engine.respond(1, 1, GREEDY, speculative=True)
    for _ in range(9):
        rig.step()
    rig.engine.confirm(1)
    rig.engine.confirm(1)
    rig.drain()
    same_reply(rig.replies[1], plain.ask(1, 1))


# ------------------------------------------------------------------ turns
def test_turns_on_a_live_cache_equal_a_rebuilt_context(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = opened(make_rig(model, oracle))
    rig.engine.append_message(1, user(Image(rgb=picture(1)), QUESTION))
    first = rig.ask(1, 1)
    rig.engine.append_message(1, user(Audio(pcm=noise(1.0)), QUESTION))
    second = rig.ask(1, 2)
    plain = opened(make_rig(model, oracle))
    plain.engine.rebuild(
        1,
        (
            user(Image(rgb=picture(1)), QUESTION),
            Message(role="assistant", parts=(Text(text=first.text),)),
            user(Audio(pcm=noise(1.0)), QUESTION),
        ),
    )
    same_reply(second, plain.ask(1, 1))


def test_history_is_what_was_heard(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = opened(make_rig(model, oracle))
    rig.engine.append_message(1, user(QUESTION))
    rig.engine.respond(1, 1, GREEDY)
    while len(rig.replies.get(1, Collected()).chunks) < 5:
        rig.step()
    rig.engine.cancel(1)
    rig.engine.begin_speech(1, has_camera=False)
    rig.engine.append_audio(1, noise(0.9))
    rig.drain()
    heard = rig.engine.heard(1, 3 * 1920)  # late: the speech behind it is placed again
    assert 0 < len(heard.split()) < len(rig.replies[1].ids)
    rig.engine.end_speech(1)
    plain = opened(make_rig(model, oracle))
    plain.engine.append_message(1, user(QUESTION))
    plain.engine.append_message(1, Message(role="assistant", parts=(Text(text=heard),)))
    plain.engine.append_message(1, user(Audio(pcm=noise(0.9))))
    same_reply(rig.ask(1, 2), plain.ask(1, 1))


def test_a_cancelled_reply_of_which_nothing_was_heard_is_gone(
    model: Qwen3Omni, oracle: Oracle
) -> None:
    rig, plain = opened(make_rig(model, oracle)), opened(make_rig(model, oracle))
    for each in (rig, plain):
        each.engine.append_message(1, user(QUESTION))
    rig.engine.respond(1, 5, GREEDY)
    for _ in range(12):
        rig.step()
    rig.engine.cancel(5)
    rig.engine.cancel(5)
    assert rig.engine.heard(5, 0) == ""
    rig.drain()
    assert rig.replies[5].end is not None
    assert rig.replies[5].end.status == "cancelled"
    for each in (rig, plain):
        each.engine.append_message(1, user(Text(text="1008")))
    same_reply(rig.ask(1, 1), plain.ask(1, 1))


def test_other_instructions_are_placed_in_front(model: Qwen3Omni, oracle: Oracle) -> None:
    rig, plain = make_rig(model, oracle), opened(make_rig(model, oracle))
    rig.engine.open(1, instructions="9 9 9", voice=None)
    for each in (rig, plain):
        each.engine.append_message(1, user(Audio(pcm=noise(0.6)), QUESTION))
        each.drain()
    rig.engine.configure(1, instructions=SYSTEM_TEXT, voice="Ethan")
    same_reply(rig.ask(1, 1), plain.ask(1, 1))


# ------------------------------------------------------------------ isolation law
def test_sessions_do_not_touch_each_other(model: Qwen3Omni, oracle: Oracle) -> None:
    both = opened(opened(make_rig(model, oracle)), context=2)
    both.engine.append_message(1, user(Audio(pcm=noise(1.2)), QUESTION))
    both.engine.append_message(2, user(Image(rgb=picture(4)), Text(text="7 8 9")))
    both.engine.respond(1, 1, GREEDY)
    both.engine.respond(2, 2, GREEDY)
    both.drain()
    for context, parts in (
        (1, (Audio(pcm=noise(1.2)), QUESTION)),
        (2, (Image(rgb=picture(4)), Text(text="7 8 9"))),
    ):
        alone = opened(make_rig(model, oracle))
        alone.engine.append_message(1, user(*parts))
        same_reply(both.replies[context], alone.ask(1, 1))


# ------------------------------------------------------------------ what can not be served
def test_wrong_calls_are_refused_and_lose_nothing(rig: Rig) -> None:
    engine = opened(rig).engine
    with pytest.raises(RequestError, match="voice 'Bob' is unknown"):
        engine.open(2, instructions="", voice="Bob")
    with pytest.raises(RequestError, match="context 9 is unknown"):
        engine.append_message(9, user(QUESTION))
    with pytest.raises(RequestError, match="no speech is open"):
        engine.append_audio(1, noise(0.1))
    engine.begin_speech(1, has_camera=True)
    with pytest.raises(RequestError, match="float32"):
        engine.append_audio(1, np.zeros(10, np.int16))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="uint8"):
        engine.append_frame(1, np.zeros((4, 4), np.uint8), time_s=0.0)
    with pytest.raises(RequestError, match="still open"):
        engine.respond(1, 1, GREEDY)
    engine.end_speech(1)
    assert len(rig.ask(1, 1).ids) == 8


@pytest.mark.parametrize("is_found_out_early", [False, True])
def test_a_message_that_can_not_be_taken_fails_one_reply(
    rig: Rig, is_found_out_early: bool
) -> None:
    engine = opened(rig).engine
    engine.append_message(1, user(Image(rgb=picture(0, height=2, width=900))))
    if is_found_out_early:
        rig.drain()
        assert "too long and thin" in rig.faults[0]
    failed = rig.ask(1, 1)
    assert failed.end is not None
    assert failed.end.status == "failed"
    assert "too long and thin" in (failed.end.error or "")
    engine.append_message(1, user(QUESTION))
    plain = opened(rig, context=2)
    plain.engine.append_message(2, user(QUESTION))
    same_reply(rig.ask(1, 2), plain.ask(2, 3))


def test_listening_goes_on_while_another_session_speaks(model: Qwen3Omni, oracle: Oracle) -> None:
    windows = WindowPolicy(audio_window_s=1)
    rig = Rig(model, oracle, frames=40, windows=windows, clock=lambda: 0.0)  # nobody is late
    opened(opened(rig), context=2)
    rig.engine.append_message(1, user(QUESTION))
    rig.engine.respond(1, 1, ReplyOptions(greedy=True, max_tokens=40))
    while not rig.replies.get(1, Collected()).codes:
        rig.step()
    rig.engine.begin_speech(2, has_camera=False)
    rig.engine.append_audio(2, noise(2.5))
    while rig.replies[1].end is None:
        rig.step()
    assert len(rig.engine.log_ids(2)) > 26  # both whole seconds


def test_a_full_context_fails_the_reply_not_the_engine(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = opened(make_rig(model, oracle))
    rig.engine._contexts[1].max_tokens = 20
    rig.engine.append_message(1, user(QUESTION))
    reply = rig.ask(1, 1)
    assert reply.end is not None
    assert reply.end.status == "failed"
    assert "full" in (reply.end.error or "")
    rig.engine.close(1)
    assert not rig.engine.has_work
    assert len(opened(rig).ask(1, 2).ids) == 8


def test_close_frees_a_speaking_context(rig: Rig) -> None:
    opened(rig).engine.append_message(1, user(QUESTION))
    rig.engine.respond(1, 1, GREEDY)
    for _ in range(10):
        rig.step()
    rig.engine.close(1)
    rig.engine.close(1)
    rig.drain()
    assert rig.replies[1].end is not None
    assert rig.replies[1].end.status == "cancelled"


@torch.inference_mode()
def test_a_tool_call_is_not_spoken(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = opened(make_rig(model, oracle))
    rig.engine.append_message(1, user(QUESTION))
    rig.engine._chat.tool_call_id = first_token(model, oracle)
    rig.engine.respond(1, 1, GREEDY)
    rig.drain()
    assert len(rig.replies[1].ids) == 8
    assert not rig.replies[1].codes


def first_token(model: Qwen3Omni, oracle: Oracle) -> int:
    rig = opened(make_rig(model, oracle))
    rig.engine.append_message(1, user(QUESTION))
    return rig.ask(1, 1).ids[0]
