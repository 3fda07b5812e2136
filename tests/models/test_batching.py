"""Replies made together: each is what it would be alone, and nobody waits too long for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from engine_rig import GREEDY, Collected, Rig, load_for_engine
from oracle import Oracle
from test_engine import noise, opened, picture, same_reply, user

from models import work
from models.content import Audio, AudioEvent, Image, ReplyOptions, Text
from models.context import Context
from models.deadlines import PrefillPace
from models.encoding import WindowPolicy
from models.errors import ContextFullError, ResourceError
from models.prefill import prefill
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.thinker import Thinker
from models.replying import OwnReply

QUESTIONS = ("1000 1001", "7 8 9 10 11 12 13", "42", "2000 2001 2002 2003 2004")


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


def rig_of(model: Qwen3Omni, oracle: Oracle, frames: int = 8, **options: Any) -> Rig:
    return Rig(model, oracle, frames=frames, windows=WindowPolicy(), **options)


def ask(rig: Rig, key: int, question: str, options: ReplyOptions = GREEDY) -> None:
    opened(rig, key).engine.append_message(key, user(Text(text=question)))
    rig.engine.respond(key, key, options)


def watch_batches(rig: Rig, note: Callable[[str, int], None]) -> None:
    """Tell `note` the kind and size of each batch that the engine makes."""
    maker = rig.engine._maker
    for name in ("feed_tokens", "make_frames"):
        setattr(maker, name, watched(getattr(maker, name), partial(note, name)))


def watched(make: Callable[..., Any], note: Callable[[int], None]) -> Callable[..., Any]:
    def making(replies: Sequence[OwnReply]) -> Any:
        note(len(replies))
        return make(replies)

    return making


# ------------------------------------------------------------------ isolation law
@pytest.mark.parametrize("by_steps", [False, True], ids=["plain", "by steps"])
@pytest.mark.parametrize("seed", [None, 5], ids=["greedy", "sampled"])
def test_a_reply_is_the_same_alone_and_among_others(
    model: Qwen3Omni, oracle: Oracle, by_steps: bool, seed: int | None
) -> None:
    options = [
        ReplyOptions(greedy=seed is None, seed=None if seed is None else seed + key, max_tokens=9)
        for key in range(len(QUESTIONS))
    ]
    limit = 256 if by_steps else None  # the plain kernels read as many pages as there may be
    rig_by = partial(rig_of, model, oracle, by_steps=by_steps, max_context_tokens=limit)
    together = rig_by()
    sizes: dict[str, list[int]] = {"feed_tokens": [], "make_frames": []}
    watch_batches(together, lambda name, size: sizes[name].append(size))
    for key, question in enumerate(QUESTIONS):
        ask(together, key, question, options[key])
    together.drain()
    for key, question in enumerate(QUESTIONS):
        alone = rig_by(max_batch=1)
        ask(alone, key, question, options[key])
        alone.drain()
        assert len(alone.replies[key].codes) > 2
        same_reply(together.replies[key], alone.replies[key])
    assert max(sizes["feed_tokens"]) == max(sizes["make_frames"]) == len(QUESTIONS)


# ------------------------------------------------------------------ failures
def is_complete(reply: Collected) -> bool:
    return reply.end is not None and reply.end.error is None and len(reply.codes) > 2


@pytest.mark.parametrize("part", ["thinker", "talker"])
def test_one_that_can_not_go_on_ends_alone(model: Qwen3Omni, oracle: Oracle, part: str) -> None:
    rig = rig_of(model, oracle)
    for key in (1, 2, 3):
        ask(rig, key, QUESTIONS[key])
    while min((len(rig.replies[key].codes) if key in rig.replies else 0) for key in (1, 2, 3)) < 2:
        rig.step()
    context = rig.engine._contexts[2]
    cache = context.thinker_cache if part == "thinker" else context.talker_cache
    assert cache is not None
    cache.max_length = cache.length
    rig.drain()
    end = rig.replies[2].end
    assert end is not None
    assert end.status == "failed"
    assert "the context is full" in str(end.error)
    for key in (1, 3):
        alone = rig_of(model, oracle)
        ask(alone, key, QUESTIONS[key])
        alone.drain()
        same_reply(rig.replies[key], alone.replies[key])


@pytest.mark.parametrize("stage", [Talker, Thinker], ids=["talker", "thinker"])
def test_a_failed_common_part_is_told_to_all(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, stage: type
) -> None:
    def failing(self: object, embeds: object, positions: object, caches: Sequence[object]) -> None:
        raise ResourceError(f"no memory for {len(caches)}")

    rig = rig_of(model, oracle)
    for key in (1, 2):
        ask(rig, key, QUESTIONS[key])
    while not all(key in rig.replies and rig.replies[key].codes for key in (1, 2)):
        rig.step()
    with monkeypatch.context() as patched:
        patched.setattr(stage, "step_rows", failing)
        rig.drain()
    for key in (1, 2):
        end = rig.replies[key].end
        assert end is not None
        assert "no memory for" in str(end.error)
    rig.engine.respond(1, 9, GREEDY)
    rig.drain()
    assert is_complete(rig.replies[9])


def test_the_reserve_is_asked_before_anything_is_changed(model: Qwen3Omni, oracle: Oracle) -> None:
    rig = rig_of(model, oracle)
    ask(rig, 1, QUESTIONS[0])
    while 1 not in rig.replies or not rig.replies[1].codes:
        rig.step()
    cache = rig.engine._contexts[1].talker_cache
    voice = rig.engine._replies[1].voice
    assert cache is not None
    assert voice is not None
    cache.max_length = cache.length
    with pytest.raises(ContextFullError):
        voice.reserve()


# ------------------------------------------------------------------ first sounds together
def watch_prefills(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many contexts each prefill is for, from now on."""
    sizes: list[int] = []

    def watching(model: Qwen3Omni, *contexts: Context, max_tokens: int) -> None:
        sizes.append(len(contexts))
        prefill(model, *contexts, max_tokens=max_tokens)

    monkeypatch.setattr(work, "prefill", watching)
    rig.engine._work._shares_starts = True  # as on a GPU, which is quick
    monkeypatch.setattr(PrefillPace, "chunk", lambda self, most, room_s: most)
    return sizes


@pytest.mark.parametrize("by_steps", [False, True], ids=["plain", "by steps"])
def test_first_sounds_of_several_are_made_together_and_change_nothing(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, by_steps: bool
) -> None:
    """One prefill, the first token of all, the first frame of all."""
    asked = (
        [Text(text="1000 1001")],
        [Audio(pcm=noise(0.7))],
        [Image(rgb=picture(1)), Text(text="42")],
        [Audio(pcm=noise(0.4, 1), frames=((0.0, picture(2)),)), Text(text="7 8 9")],
        [Image(rgb=picture(3, 96, 64))],
    )
    limit = 512 if by_steps else None
    together, alone = (
        rig_of(model, oracle, by_steps=by_steps, max_context_tokens=limit) for _ in range(2)
    )
    sizes = watch_prefills(together, monkeypatch)
    for rig in (together, alone):
        for key in range(len(asked)):
            opened(rig, key)
        rig.drain()  # instructions are prefilled before anybody asks
    sizes.clear()
    made: dict[str, list[int]] = {"feed_tokens": [], "make_frames": []}
    watch_batches(together, lambda name, size: made[name].append(size))
    for rig in (together, alone):
        for key, parts in enumerate(asked):
            rig.engine.append_message(key, user(*parts))
            rig.engine.respond(key, key, GREEDY)
            if rig is alone:
                rig.drain()
        rig.drain()
    assert max(sizes) == len(asked)
    assert [kind[0] for kind in made.values()] == [len(asked)] * 2
    for key in range(len(asked)):
        assert together.replies[key].codes
        same_reply(together.replies[key], alone.replies[key])


def test_a_context_without_room_does_not_hold_up_those_it_was_joined_with(
    model: Qwen3Omni, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, alone = rig_of(model, oracle), rig_of(model, oracle)
    sizes = watch_prefills(rig, monkeypatch)
    for each in (rig, alone):
        for key, question in enumerate(QUESTIONS[:3]):
            ask(each, key, question)
    full, refusals = rig.engine._contexts[1].thinker_cache, 2  # together, and then alone
    reserve = full.reserve

    def refuse(num_tokens: int) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise ContextFullError("no room")
        reserve(num_tokens)

    monkeypatch.setattr(full, "reserve", refuse)
    rig.drain()
    alone.drain()
    assert max(sizes) == 3
    assert rig.replies[1].end is not None
    assert rig.replies[1].end.status == "failed"
    for key in (0, 2):
        same_reply(rig.replies[key], alone.replies[key])


# ------------------------------------------------------------------ many sessions, simulated time
COSTS_S = {"feed_tokens": (0.002, 0.001), "make_frames": (0.008, 0.002)}  # of a batch, of each more
LONG = ReplyOptions(greedy=True, max_tokens=20)
PAUSE_S = 0.05  # between one session's question and the next one's


class Machine:
    """An engine whose work takes as long as on some imagined machine, by a clock of its own."""

    def __init__(self, model: Qwen3Omni, oracle: Oracle, max_batch: int) -> None:
        self.now_s = 0.0
        self.rig = rig_of(model, oracle, 20, clock=lambda: self.now_s, max_batch=max_batch)
        watch_batches(self.rig, self._spend)

    def _spend(self, name: str, size: int) -> None:
        fixed_s, each_s = COSTS_S[name]
        self.now_s += fixed_s + size * each_s

    def ask(self, count: int) -> None:
        """Questions of so many sessions, one after the other."""
        for key in range(count):
            ask(self.rig, key, f"{1000 + key} 1001", LONG)
            asked_s = self.now_s
            while self.now_s < asked_s + PAUSE_S:
                if self.rig.engine.has_work:
                    self.rig.step()
                else:
                    self.now_s += 0.001

    def late_frames(self) -> list[int]:
        """Of each session, once all have been answered."""
        self.rig.drain()
        ends = [reply.end for reply in self.rig.replies.values()]
        assert all(end is not None and end.error is None for end in ends)
        return [end.stages.late_frames for end in ends if end is not None]


def test_sixteen_sessions_starve_alone_and_not_together(model: Qwen3Omni, oracle: Oracle) -> None:
    together, alone = (Machine(model, oracle, max_batch) for max_batch in (8, 1))
    for machine in (together, alone):
        machine.ask(16)
    assert together.late_frames() == [0] * 16
    assert sum(alone.late_frames()) > 16


def test_a_first_packet_overtakes_the_frames_of_fifteen_others(
    model: Qwen3Omni, oracle: Oracle
) -> None:
    machine = Machine(model, oracle, 8)
    machine.ask(15)
    rig = machine.rig
    ask(rig, 15, "42 43", LONG)
    asked_s = machine.now_s
    spoken: list[int] = []
    while 15 not in spoken:
        spoken += [event.response for event in rig.step() if isinstance(event, AudioEvent)]
    assert spoken == [15]
    assert machine.now_s - asked_s < 0.02
    assert sum(not reply.end for reply in rig.replies.values()) > 8
    assert sum(machine.late_frames()) == 0
