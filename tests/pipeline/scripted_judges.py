"""Judges that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.listening.interruption import KINDS, Kind
from pipeline.listening.judges import Judges
from pipeline.messages import Pcm, Reading


@dataclass
class ScriptedEnd:
    """`complete`: what it thinks of each pause in turn, the last for ever (of words: `end`)."""

    complete: list[float]
    heard: list[int] = field(default_factory=list)

    def probability(self, pcm: Pcm, reading: Reading | None = None) -> float:
        self.heard.append(len(pcm))
        if reading is not None:
            return reading.end
        return self.complete.pop(0) if len(self.complete) > 1 else self.complete[0]


@dataclass
class ScriptedSound:
    """`interruption`: what it thinks of each look in turn, the last for ever."""

    interruption: list[float]
    num_looks: int = 0
    is_side_speech: bool = False

    def kinds(
        self, pcm: Pcm, *, usual_db: float, reading: Reading | None = None
    ) -> Mapping[Kind, float]:
        self.num_looks += 1
        if reading is not None:
            self.interruption = [reading.end]
        share = self.interruption.pop(0) if len(self.interruption) > 1 else self.interruption[0]
        others = dict.fromkeys(KINDS, (1 - share) / 3)
        if self.is_side_speech:
            others = dict.fromkeys(KINDS, 0.0) | {"side_speech": 1 - share}
        return others | {"interruption": share}


def judges(
    *, complete: list[float] | None = None, interruption: list[float] | None = None
) -> Judges:
    return Judges(
        end_of_turn=ScriptedEnd(complete or [1.0]),
        interruption=ScriptedSound(interruption or [1.0]),
    )
