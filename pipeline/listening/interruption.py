"""The user makes a sound while a reply is heard: an interruption, or nothing to stop for?

Judged within half a second from the sound alone: how long it lasts, whether it is voiced, how loud
it is beside the user's usual voice, what colour it has; and from the words that an engine has read
in it, where one has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from pipeline.listening import network
from pipeline.listening.prosody import FRAMES_PER_S, Floats, analyse
from pipeline.messages import ENGINE_INPUT_HZ, Pcm, Reading

Kind = Literal["interruption", "backchannel", "noise", "side_speech"]
KINDS: tuple[Kind, ...] = get_args(Kind)

HEARD_S = 1.0  # before the newest sample
DEFAULT_LEVEL_DB = -26.0  # of a voice that was not heard yet
LEVEL_SHARE = 0.3  # how much a new turn counts in what is usual


class InterruptionJudge(Protocol):
    """Stateless; may be shared by sessions."""

    def kinds(
        self, pcm: Pcm, *, usual_db: float, reading: Reading | None = None
    ) -> Mapping[Kind, float]:
        """How likely the sound is of each kind; they add up to 1.

        pcm: [num_samples] float32 at 16 kHz, from a little before its onset until now. usual_db:
        level of the user's own voice, see `VoiceLevel`. reading: what an engine has read in it,
        or in a little less of it.
        """


class SoundJudge:
    """See the module's docstring. A few milliseconds of one core for each look."""

    def __init__(self) -> None:
        self._network = network.load("interruption")

    def kinds(
        self, pcm: Pcm, *, usual_db: float, reading: Reading | None = None
    ) -> Mapping[Kind, float]:
        """See `InterruptionJudge.kinds`."""
        found = self._network(features(pcm, usual_db=usual_db))
        if reading is not None:
            with_words = network.load("interruption", network.WORD_JUDGES)
            found = with_words(features_with_words(found, len(pcm), reading))
        return {kind: float(share) for kind, share in zip(KINDS, found, strict=True)}


@dataclass(slots=True)
class VoiceLevel:
    """How loud the user usually is, learnt from whole turns. dB below full scale."""

    usual_db: float = DEFAULT_LEVEL_DB
    num_turns: int = 0

    def learn(self, pcm: Pcm) -> None:
        """Take in a turn."""
        level_db = loud_db(pcm)
        share = LEVEL_SHARE if self.num_turns else 1.0
        self.usual_db += share * (level_db - self.usual_db)
        self.num_turns += 1


def features_with_words(alone: Floats, num_samples: int, reading: Reading) -> Floats:
    """What the network that knows words is given: what was made of the sound, its length, words."""
    odds = [network.log_odds(float(share)) for share in alone]
    length_s = min(num_samples / ENGINE_INPUT_HZ, HEARD_S)
    return np.concatenate([odds, [length_s], network.of_words(reading)])


def loud_db(pcm: Pcm) -> float:
    """Level of the louder half of a sound's speech frames."""
    frames = analyse(pcm[-8 * ENGINE_INPUT_HZ :])
    return float(np.quantile(frames.level_db[frames.loud], 0.7))


def features(pcm: Pcm, *, usual_db: float) -> Floats:
    """What the network is given. Arguments as for `InterruptionJudge.kinds`."""
    frames = analyse(pcm[-round(HEARD_S * ENGINE_INPUT_HZ) :])
    loud = np.flatnonzero(frames.loud)
    first, end = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(frames))
    voiced = frames.voiced[first:end]
    level = frames.level_db[first:end]
    bands = frames.bands[first:end]
    pitch = frames.f0[first:end][voiced]
    middle = float(np.median(pitch)) if len(pitch) else 7.0
    flux = np.abs(np.diff(bands, axis=0)).mean(axis=1) if end - first > 1 else np.zeros(1)
    shape = np.array(
        [
            (end - first) / FRAMES_PER_S * 4,
            (len(frames) - end) / FRAMES_PER_S * 8,
            voiced.mean(),
            voiced.sum() / FRAMES_PER_S * 4,
            np.diff(voiced.astype(np.int8)).clip(0).sum(),
            (float(np.quantile(level, 0.7)) - usual_db) / 6,
            (float(level.max()) - usual_db) / 6,
            level.std() / 6,
            level[: max(1, len(level) // 3)].mean() / 6
            - level[-max(1, len(level) // 3) :].mean() / 6,
            (frames.loud[first:end].mean()),
            flux.mean() * 2,
            flux.std() * 2,
            pitch.std() * 4 if len(pitch) else 0.0,
            float(pitch[-3:].mean() - pitch[:3].mean()) * 2 if len(pitch) > 5 else 0.0,
            middle - 7.0,
        ],
        np.float32,
    )
    thirds = [part.mean(axis=0) for part in np.array_split(bands, 3) if len(part)]
    thirds += [bands.mean(axis=0)] * (3 - len(thirds))
    return np.concatenate([shape, *thirds, bands.std(axis=0)]).astype(np.float32)
