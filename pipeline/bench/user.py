"""A made user: speaks, pauses, hums, coughs, interrupts, and waits for answers as a person does.

Everything that it says is known to the sample, and what it does next depends only on what it hears
and on its seed. Time is the media clock, in steps of 20 ms.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipeline.messages import ENGINE_INPUT_HZ, Pcm
from pipeline.synthetic import examples, sentences, sounds, voices
from pipeline.synthetic.sentences import Pool
from pipeline.synthetic.voices import Voice

STEP_S = 0.02
STEP_SAMPLES = round(STEP_S * ENGINE_INPUT_HZ)
PATIENCE_S = 4.0  # longest wait for an answer
LONGEST_REPLY_S = 14.0
SILENT_S = 0.7  # after which a reply counts as over
BREATH_S = 0.5  # a shorter silence inside a reply is no end of it
PAUSE_S = (0.25, 1.1)

Sort = Literal["turn", "interruption", "backchannel", "tic", "noise", "side_speech"]
OVERLAYS: tuple[Sort, ...] = ("interruption", "backchannel", "tic", "noise", "side_speech")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One sound of the user channel, seconds. `pauses`: (start, end) of each inside a turn."""

    sort: Sort
    on_s: float
    off_s: float
    pauses: tuple[tuple[float, float], ...] = ()


@dataclass(slots=True)
class User:
    """See the module's docstring. `said` is the truth, in order; `questions`: what is said in
    turns, if not any sentence.
    """

    seed: int
    num_exchanges: int
    pool: Pool
    questions: tuple[str, ...] = ()
    said: list[Said] = field(default_factory=list)
    _chance: random.Random = field(init=False)
    _now_s: float = 0.0
    _agent_heard_s: float = -10.0
    _voice: Voice = field(init=False)
    _level_db: float = -24.0
    _floor: Pcm = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._voice = voices.draw(self._chance, is_held_out=self.pool.is_held_out)
        self._level_db = self._chance.uniform(-30, -18)
        gain = 10 ** ((self._level_db - self._chance.uniform(30, 45)) / 20)
        self._floor = sounds.noise(4 * ENGINE_INPUT_HZ, self._chance) * np.float32(gain)

    def live(self) -> Generator[Pcm, bool, None]:
        """Yields the microphone in steps; is sent whether the agent can be heard."""
        yield from self._wait(0.6)
        plan = [OVERLAYS[i % len(OVERLAYS)] for i in range(self.num_exchanges)]
        self._chance.shuffle(plan)
        for sort in plan:
            yield from self._exchange(sort)

    # ------------------------------------------------------------------ behaviour
    def _exchange(self, overlay: Sort) -> Generator[Pcm, bool, None]:
        is_in_silence = overlay in ("tic", "noise", "side_speech") and self._chance.random() < 0.25
        if is_in_silence:
            yield from self._sound(overlay)
            yield from self._wait(2.2)
            yield from self._until_silent()
        yield from self._turn()
        yield from self._until_answered()
        if self._agent_speaks and not is_in_silence:
            yield from self._wait(self._chance.uniform(0.9, 1.6))
            if self._agent_speaks:
                yield from self._sound(overlay)
                if overlay == "interruption":
                    yield from self._wait(0.3)
                    yield from self._until_answered()
        yield from self._until_silent()
        yield from self._wait(self._chance.uniform(0.2, 0.8))

    def _turn(self) -> Generator[Pcm, bool, None]:
        on_s = self._now_s
        pauses: tuple[tuple[float, float], ...] = ()
        if self._chance.random() < 0.5:
            parts = self._halves()
            yield from self._play(self._levelled(parts[0]))
            start_s = self._now_s
            yield from self._wait(self._chance.uniform(*PAUSE_S))
            pauses = ((start_s, self._now_s),)
            yield from self._play(self._levelled(parts[1]))
        else:
            yield from self._play(self._levelled(voices.say(self._sentence(), self._voice).pcm))
        self._note("turn", on_s, pauses)

    def _sentence(self) -> str:
        if self.questions:
            return self._chance.choice(self.questions)
        return sentences.draw(self._chance, self.pool)

    def _halves(self) -> tuple[Pcm, Pcm]:
        if self.questions:
            return examples.parted(self._chance, self._voice, self._sentence())
        return examples.halves(self._chance, self._voice, pool=self.pool)

    def _sound(self, sort: Sort) -> Generator[Pcm, bool, None]:
        on_s = self._now_s
        yield from self._play(self._made(sort))
        self._note(sort, on_s, ())

    def _made(self, sort: Sort) -> Pcm:
        chance, usual_db = self._chance, self._level_db
        if sort == "tic":
            return sounds.at_level(sounds.cough(chance), usual_db + chance.gauss(-2, 4))
        if sort == "noise":
            return sounds.at_level(sounds.clatter(chance), usual_db + chance.gauss(-4, 4))
        voice = self._voice
        if sort == "side_speech":
            voice = voices.draw(chance, is_held_out=self.pool.is_held_out)
        assert sort in ("interruption", "backchannel", "side_speech"), sort
        return examples.interjection(sort, chance, voice, usual_db=usual_db, pool=self.pool)

    def _until_answered(self) -> Generator[Pcm, bool, None]:
        start_s = self._now_s
        while not self._agent_speaks and self._now_s - start_s < PATIENCE_S:
            yield from self._wait(STEP_S)

    def _until_silent(self) -> Generator[Pcm, bool, None]:
        start_s = silent_s = self._now_s
        while self._now_s - silent_s < SILENT_S and self._now_s - start_s < LONGEST_REPLY_S:
            yield from self._wait(STEP_S)
            if self._agent_speaks:
                silent_s = self._now_s

    # ------------------------------------------------------------------ parts
    @property
    def _agent_speaks(self) -> bool:
        return self._now_s - self._agent_heard_s < BREATH_S

    def _levelled(self, pcm: Pcm) -> Pcm:
        return sounds.at_level(pcm, self._level_db + self._chance.gauss(0, 1))

    def _wait(self, seconds: float) -> Generator[Pcm, bool, None]:
        yield from self._play(np.zeros(round(seconds * ENGINE_INPUT_HZ), np.float32))

    def _play(self, pcm: Pcm) -> Generator[Pcm, bool, None]:
        for start in range(0, len(pcm), STEP_SAMPLES):
            step = np.zeros(STEP_SAMPLES, np.float32)
            part = pcm[start : start + STEP_SAMPLES]
            step[: len(part)] = part
            at = round(self._now_s * ENGINE_INPUT_HZ) % (len(self._floor) - STEP_SAMPLES)
            self._now_s += STEP_S
            is_audible = yield step + self._floor[at : at + STEP_SAMPLES]
            if is_audible:
                self._agent_heard_s = self._now_s

    def _note(self, sort: Sort, on_s: float, pauses: tuple[tuple[float, float], ...]) -> None:
        self.said.append(Said(sort=sort, on_s=on_s, off_s=self._now_s, pauses=pauses))
