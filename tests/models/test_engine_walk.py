"""Whatever is done to a context, its next reply is that of a fresh one with the same history.

A seeded walk makes random calls, keeps plain notes of what the log must then be, and replays them
into a new engine. This is the law of streaming, rollback and cancelling over whole sessions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from engine_rig import Collected, Rig, load_for_engine
from oracle import Oracle

from models.content import Audio, Image, Message, Part, ReplyOptions, Text
from models.encoding import WindowPolicy
from models.qwen3_omni.model import Qwen3Omni

SHORT = ReplyOptions(greedy=True, max_tokens=4)
INSTRUCTIONS = ("2610 525 264", "9 8 7 6", "")
WINDOWS = WindowPolicy(audio_window_s=1, camera_window_s=1)
CHUNK_S = 0.4
NUM_CALLS = 40


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


@dataclass(slots=True)
class Speech:
    """What was said; `chunks` are seeds of noise."""

    has_camera: bool
    chunks: tuple[int, ...] = ()
    is_closed: bool = False


@dataclass(slots=True)
class Said:
    """A reply and what of its text stays; None: all that it will have."""

    response: int
    text: str | None = None


Entry = Message | Speech | Said


@dataclass(slots=True)
class Walk:
    """One session and the notes about it."""

    rig: Rig
    chance: random.Random
    instructions: str = INSTRUCTIONS[0]
    entries: list[Entry] = field(default_factory=list)
    marks: dict[int, list[Entry]] = field(default_factory=dict)
    num_ids: int = 0

    @property
    def open_speech(self) -> Speech | None:
        last = self.entries[-1] if self.entries else None
        return last if isinstance(last, Speech) and not last.is_closed else None

    def active(self) -> Said | None:
        replies = self.rig.engine._replies
        said = [e for e in self.entries if isinstance(e, Said)]
        return next((e for e in said if replies[e.response].is_active), None)

    def new_id(self) -> int:
        self.num_ids += 1
        return self.num_ids

    # ------------------------------------------------------------------ calls
    def call(self) -> None:
        """One random call, and sometimes some work after it."""
        speaking = self.open_speech is not None
        calls = [self.mark, self.rollback, self.cancel, self.confirm, self.heard, self.configure]
        calls.append(self.give_up_caches)
        calls += [self.more, self.more, self.end] if speaking else [self.begin, self.message]
        if not speaking and self.active() is None:
            calls += [self.respond] * 4
        self.chance.choice(calls)()
        for _ in range(self.chance.choice((0, 0, 1, 3, 10, 30))):
            self.rig.step()

    def message(self) -> None:
        part: Part = self.chance.choice(
            (Text(text="1000 1001"), Audio(pcm=noise(0.3, 1)), Image(rgb=picture(2)))
        )
        message = Message(role="user", parts=(part, Text(text=f" {self.chance.randrange(1000)}")))
        self.rig.engine.append_message(1, message)
        self.entries.append(message)

    def begin(self) -> None:
        speech = Speech(has_camera=self.chance.random() < 0.4)
        self.rig.engine.begin_speech(1, has_camera=speech.has_camera)
        self.entries.append(speech)

    def more(self) -> None:
        speech = self.open_speech
        assert speech is not None
        seed = self.chance.randrange(1000)
        say(self.rig, speech, seed, at=len(speech.chunks))
        speech.chunks += (seed,)

    def end(self) -> None:
        speech = self.open_speech
        assert speech is not None
        self.rig.engine.end_speech(1)
        speech.is_closed = True

    def respond(self) -> None:
        said = Said(self.new_id())
        options = replace(SHORT, audio=self.chance.random() < 0.8)
        is_speculative = self.chance.random() < 0.4
        self.rig.engine.respond(1, said.response, options, speculative=is_speculative)
        self.entries.append(said)

    def confirm(self) -> None:
        if (said := self.active()) is not None:
            self.rig.engine.confirm(said.response)

    def cancel(self) -> None:
        said = self.active()
        if said is None:
            return
        reply = self.rig.engine._replies[said.response]
        is_unheard = reply.wants_voice or reply.held is not None
        self.rig.engine.cancel(said.response)
        said.text = "" if is_unheard else reply.text

    def heard(self) -> None:
        said = [e for e in self.entries if isinstance(e, Said)]
        if said:
            chosen = self.chance.choice(said)
            num_samples = self.chance.choice((0, 1365, 3285, 10**6))
            chosen.text = self.rig.engine.heard(chosen.response, num_samples)

    def configure(self) -> None:
        self.instructions = self.chance.choice(INSTRUCTIONS)
        self.rig.engine.configure(1, instructions=self.instructions, voice=None)

    def give_up_caches(self) -> None:
        """As when memory runs short; the next call of the engine fills them again."""
        if self.active() is None:
            self.rig.engine._contexts[1].rest(self.chance.choice((1, 9, 30, None)))
            self.rig.engine.set_mark(1, self.new_id())

    def mark(self) -> None:
        mark = self.new_id()
        self.rig.engine.set_mark(1, mark)
        self.marks[mark] = [noted(entry) for entry in self.entries]

    def rollback(self) -> None:
        valid = [mark for mark in self.marks if mark in self.rig.engine._contexts[1].marks]
        if not valid:
            return
        mark = self.chance.choice(valid)
        kept = self.marks[mark]
        if self.active() in self.entries[len(kept) :]:
            self.cancel()
        self.rig.engine.rollback(1, mark)
        now = self.entries[: len(kept)]  # a reply before the mark stays as it was heard since
        self.entries = [
            noted(old) if isinstance(old, Speech) else new
            for old, new in zip(kept, now, strict=True)
        ]

    # ------------------------------------------------------------------ the law
    def check(self, fresh: Rig) -> None:
        if self.open_speech is not None:
            self.end()
        self.confirm()  # an unconfirmed reply would never end
        self.rig.drain()
        fresh.engine.open(1, instructions=self.instructions, voice=None)
        for entry in self.entries:
            self.tell(fresh, entry)
            fresh.drain()
        ours, other = (rig.ask(1, 999, SHORT) for rig in (self.rig, fresh))
        assert not self.rig.faults
        assert self.rig.engine.log_ids(1) == fresh.engine.log_ids(1)
        same_reply(ours, other)
        for rig in (self.rig, fresh):
            context = rig.engine._contexts[1]
            assert context.talker_cache is not None
            assert context.talker_cache.length == context.log.talker_length

    def tell(self, fresh: Rig, entry: Entry) -> None:
        engine = fresh.engine
        match entry:
            case Message():
                engine.append_message(1, entry)
            case Speech():
                engine.begin_speech(1, has_camera=entry.has_camera)
                for at, seed in enumerate(entry.chunks):
                    say(fresh, entry, seed, at=at)
                engine.end_speech(1)
            case Said():
                text = entry.text
                if text is None:
                    text = self.rig.engine._replies[entry.response].text
                if text:
                    engine.append_message(1, Message(role="assistant", parts=(Text(text=text),)))


def noted(entry: Entry) -> Entry:
    return replace(entry) if isinstance(entry, Speech) else entry


def say(rig: Rig, speech: Speech, seed: int, *, at: int) -> None:
    if speech.has_camera:
        rig.engine.append_frame(1, picture(seed), time_s=at * CHUNK_S)
    rig.engine.append_audio(1, noise(CHUNK_S, seed))


def noise(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 64, 3), dtype=np.uint8)


def same_reply(ours: Collected, other: Collected) -> None:
    assert ours.ids == other.ids
    assert ours.codes == other.codes
    np.testing.assert_allclose(ours.pcm, other.pcm, atol=2)


def make_rig(model: Qwen3Omni, oracle: Oracle, *, by_steps: bool) -> Rig:
    limit = 512 if by_steps else None  # the plain kernels read as many pages as there may be
    return Rig(
        model, oracle, frames=5, windows=WINDOWS, by_steps=by_steps, max_context_tokens=limit
    )


@pytest.mark.parametrize(
    ("seed", "by_steps"), [*((seed, False) for seed in range(12)), (12, True), (13, True)]
)
def test_any_calls_equal_a_fresh_context(
    model: Qwen3Omni, oracle: Oracle, seed: int, by_steps: bool
) -> None:
    rig = make_rig(model, oracle, by_steps=by_steps)
    rig.engine.open(1, instructions=INSTRUCTIONS[0], voice=None)
    walk = Walk(rig, random.Random(seed))
    for _ in range(NUM_CALLS):
        walk.call()
    walk.check(make_rig(model, oracle, by_steps=by_steps))
