"""Work by deadline, with scripted contexts and replies and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from models.deadlines import BatchPace, PlayoutClock
from models.joining import MAX_FIRST_TOGETHER, join
from models.scheduler import (
    AHEAD_S,
    FAIR_S,
    MAX_HELD_FRAMES,
    MAX_REPLY_UNITS,
    MAX_URGENT_UNITS,
    Unit,
    choose,
    room_s,
)

HZ = 24_000


@dataclass
class ScriptedContext:
    num_to_prefill: int = 0
    can_place: bool = False
    is_resting: bool = False
    active_reply: object | None = None
    question: object | None = None

    def is_placed(self, entry: object) -> bool:
        return True


@dataclass
class ScriptedVoice:
    num_frames: int = 1


@dataclass
class ScriptedReply:
    """A voice with `left_s` of speech left to play at time 0; None: nothing made yet."""

    id: int
    left_s: float | None = 1.0
    held: list[Any] | None = None
    wants_voice: bool = True
    can_speak: bool = True
    is_voice_done: bool = False
    is_text_done: bool = False
    is_active: bool = True
    entry: object = None
    text_ids: list[int] = field(default_factory=lambda: [1])
    script_ids: list[int] | None = None
    voice: ScriptedVoice | None = field(default_factory=ScriptedVoice)
    num_held_frames: int = 0

    @property
    def context(self) -> int:
        return self.id

    @property
    def playout(self) -> PlayoutClock:
        if self.left_s is None or self.held is not None:
            return PlayoutClock()
        return PlayoutClock(started_s=0.0, num_samples=round(self.left_s * HZ))

    @property
    def num_samples(self) -> int:
        return self.playout.num_samples

    @property
    def frame_ends(self) -> list[int]:
        return [1] * self.num_held_frames

    @property
    def is_awaited(self) -> bool:
        return self.held is None and self.left_s is None


class Listening:
    """Contexts whose speech waits to be encoded."""

    def __init__(self, *contexts: ScriptedContext) -> None:
        self._contexts = contexts

    def has_work(self, context: object) -> bool:
        return any(context is one for one in self._contexts)


def chosen(
    replies: Iterable[ScriptedReply], *, now_s: float = 0.0, units: int = 0, listens: bool = False
) -> Unit | None:
    contexts = {reply.id: ScriptedContext(active_reply=reply) for reply in replies}
    contexts[99] = ScriptedContext(num_to_prefill=100 if listens else 0)
    return choose(
        contexts,  # type: ignore[arg-type]
        replies,  # type: ignore[arg-type]
        Listening(),
        now_s=now_s,
        num_reply_units=units,
    )


@pytest.mark.parametrize(("left_s", "kind"), [(None, "frame"), (0.05, "frame"), (1.0, "read")])
def test_what_is_asked_waits_for_speech_that_is_due_and_for_nothing_else(
    left_s: float | None, kind: str
) -> None:
    reply, asked = ScriptedReply(1, left_s), ScriptedContext(num_to_prefill=9, question=(1, None))
    contexts = {1: ScriptedContext(active_reply=reply), 2: asked}
    unit = choose(contexts, [reply], Listening(asked), now_s=0.0)  # type: ignore[arg-type, list-item]
    assert unit is not None
    assert unit.kind == kind


def test_the_voice_that_runs_dry_first_comes_first() -> None:
    assert chosen([ScriptedReply(1, 0.15), ScriptedReply(2, 0.05)]) == Unit("frame", 2, 2)


def test_first_sounds_overtake_frames() -> None:
    replies = [ScriptedReply(1, 0.01), ScriptedReply(2, None, text_ids=[], can_speak=False)]
    assert chosen(replies) == Unit("token", 2, 2)


def test_listening_goes_before_voices_with_time_in_hand_and_behind_those_without() -> None:
    assert chosen([ScriptedReply(1, 0.5)], listens=True) == Unit("prefill", 99)
    assert chosen([ScriptedReply(1, 0.1)], listens=True) == Unit("frame", 1, 1)
    assert chosen([ScriptedReply(1, 0.5)]) == Unit("frame", 1, 1)


def test_time_makes_a_voice_urgent() -> None:
    replies = [ScriptedReply(1, 0.5)]
    assert chosen(replies, now_s=0.4, listens=True) == Unit("frame", 1, 1)


def test_listening_is_never_starved() -> None:
    late = [ScriptedReply(1, -1.0)]
    assert chosen(late, listens=True, units=MAX_REPLY_UNITS) == Unit("frame", 1, 1)
    assert chosen(late, listens=True, units=MAX_URGENT_UNITS) == Unit("prefill", 99)
    reading = [ScriptedReply(1, wants_voice=False, can_speak=False)]
    assert chosen(reading, listens=True) == Unit("token", 1, 1)
    assert chosen(reading, listens=True, units=MAX_REPLY_UNITS) == Unit("prefill", 99)


def test_a_first_sound_does_not_wait_for_listening() -> None:
    replies = [ScriptedReply(1, None, text_ids=[], can_speak=False)]
    assert chosen(replies, listens=True, units=MAX_URGENT_UNITS) == Unit("token", 1, 1)


def test_speculation_comes_behind_what_is_heard_but_not_behind_what_is_far_ahead() -> None:
    held = ScriptedReply(1, held=[])
    assert chosen([held, ScriptedReply(2, 1.0)]) == Unit("frame", 2, 2)
    assert chosen([held], listens=True) == Unit("prefill", 99)
    assert chosen([held, ScriptedReply(2, AHEAD_S)]) == Unit("frame", 1, 1)


def test_speculation_stops_after_some_frames() -> None:
    assert chosen([ScriptedReply(1, held=[], num_held_frames=MAX_HELD_FRAMES)]) is None


def test_a_context_that_rests_is_not_prefilled() -> None:
    for is_resting, unit in ((False, Unit("prefill", 1)), (True, None)):
        context = ScriptedContext(num_to_prefill=9, is_resting=is_resting)
        assert choose({1: context}, [], Listening(), now_s=0.0) == unit  # type: ignore[dict-item]


def test_voices_far_ahead_still_use_an_idle_engine() -> None:
    assert chosen([ScriptedReply(1, 30.0)]) == Unit("frame", 1, 1)


def test_prefill_has_as_long_as_the_hungriest_listener() -> None:
    done = ScriptedReply(3, 0.1, is_voice_done=True)
    replies = [ScriptedReply(1, 0.9), ScriptedReply(2, 0.3), done]
    assert room_s(replies, 0.1) == pytest.approx(0.2)  # type: ignore[arg-type]
    assert room_s([ScriptedReply(1, None)], 0.0) is None  # type: ignore[list-item]
    assert room_s([], 0.0, num_contexts=1) is None
    assert room_s([], 0.0, num_contexts=2) == FAIR_S, "somebody else may want to be answered"


# ------------------------------------------------------------------ who joins
def joined(
    replies: list[ScriptedReply],
    pace: BatchPace,
    *,
    num_to_prefill: int = 1,
    max_batch: int = 4,
    starts_together: bool = False,
) -> list[int]:
    """Replies of the batch around the most urgent one."""
    contexts = {reply.id: ScriptedContext(num_to_prefill=num_to_prefill) for reply in replies}
    waiting: Any = (contexts, replies, Listening())
    unit = choose(*waiting, now_s=0.0)
    assert unit is not None
    units = join(
        unit,
        *waiting,
        now_s=0.0,
        max_batch=max_batch,
        pace=pace,
        starts_together=starts_together,
    )
    assert {one.kind for one in units} == {unit.kind}
    return [one.reply for one in units if one.reply is not None]


def known(*costs_s: float) -> BatchPace:
    """What batches of 1, 2, ... frames or tokens cost."""
    pace = BatchPace()
    for size, cost_s in enumerate(costs_s, start=1):
        for kind in ("frame", "token"):
            pace.learn(kind, size, cost_s)
    return pace


def test_others_join_in_the_order_of_their_deadlines() -> None:
    lefts = (0.15, 0.05, 0.3, 0.1, 0.2)
    replies = [ScriptedReply(key, left) for key, left in enumerate(lefts)]
    assert joined(replies, known(0.01, 0.01, 0.01, 0.01)) == [1, 3, 0, 4]


def test_only_work_of_the_same_kind_joins() -> None:
    reading = ScriptedReply(2, 0.06, can_speak=False)
    begins = ScriptedReply(3, 0.07, voice=None)
    replies = [ScriptedReply(1, 0.05), reading, begins, ScriptedReply(4, 0.08)]
    assert joined(replies, known(0.01)) == [1, 4]
    scripted = ScriptedReply(2, 0.06, can_speak=False, script_ids=[1])
    replies = [ScriptedReply(1, 0.05, can_speak=False), scripted]
    assert joined(replies, known(0.01)) == [1]
    replies = [ScriptedReply(key, 0.05, can_speak=False) for key in (1, 2)]
    assert joined(replies, known(0.01)) == [1, 2]
    assert joined(replies, known(0.01), num_to_prefill=3) == [1], "a prefill is nobody's company"


def test_nobody_far_ahead_joins_where_it_makes_somebody_late() -> None:
    ahead = ScriptedReply(2, 3.0)
    assert joined([ScriptedReply(1, 0.05), ahead], known(0.03, 0.04)) == [1, 2]
    assert joined([ScriptedReply(1, 0.035), ahead], known(0.03, 0.04)) == [1]
    assert joined([ScriptedReply(1, -1.0), ahead], known(0.03, 0.04)) == [1], "late already"
    assert joined([ScriptedReply(1, 0.05), ahead], BatchPace()) == [1], "its price is not known"
    waits = ScriptedReply(3, 0.035, can_speak=False)
    assert joined([ScriptedReply(1, 0.03), waits, ahead], known(0.03, 0.04)) == [1]


def test_those_who_run_dry_join_unless_the_first_could_still_be_in_time() -> None:
    replies = [ScriptedReply(1, 0.035), ScriptedReply(2, 0.1)]
    assert joined(replies, known(0.03, 0.04)) == [1]
    assert joined(replies, known(0.03, 0.034)) == [1, 2]
    late = [ScriptedReply(1, -0.1), ScriptedReply(2, 0.0), ScriptedReply(3, 0.1)]
    assert joined(late, known(0.03, 0.06, 0.12)) == [1, 2, 3]


def test_a_first_sound_has_no_company() -> None:
    first = ScriptedReply(1, None, voice=None)
    assert joined([first, ScriptedReply(2, 0.05)], known(0.01)) == [1]


@pytest.mark.parametrize("kind", ["token", "frame"])
def test_first_sounds_are_made_together_where_that_costs_little(kind: str) -> None:
    """The first tokens, then the first frames of those who wait, speculative replies last; nobody
    who speaks already joins.
    """
    begins: dict[str, Any] = (
        {"text_ids": [], "can_speak": False} if kind == "token" else {"voice": None}
    )
    replies = [ScriptedReply(key, None, **begins) for key in range(3)]
    replies += [ScriptedReply(3, None, held=[], **begins), ScriptedReply(4, 0.05)]
    many = [ScriptedReply(key, None, **begins) for key in range(2 * MAX_FIRST_TOGETHER)]
    asked: dict[str, Any] = {"num_to_prefill": 0, "max_batch": 32}
    assert joined(replies, known(0.01), **asked) == [0]
    asked["starts_together"] = True
    assert joined(replies, known(0.01), **asked) == [0, 1, 2, 3]
    assert len(joined(many, known(0.01), **asked)) == MAX_FIRST_TOGETHER
    asked["max_batch"] = 2
    assert joined(replies, known(0.01), **asked) == [0, 1]
