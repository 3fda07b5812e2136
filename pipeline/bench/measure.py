"""What a recorded conversation is worth, by exact rules.

The agent's channel becomes segments: 10 ms frames louder than -45 dBFS, gaps up to 500 ms
closed within a reply, pieces under 100 ms dropped. All times are seconds on the media clock;
latencies are signed. Nobody is left out for having failed: an interruption that the agent talks
over counts, unless the reply would have been over within the time that it has to yield.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from pipeline import events
from pipeline.bench.recording import Recording
from pipeline.bench.user import Said
from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm16

FRAME_S = 0.01
LOUD_DBFS = -45.0
MAX_GAP_S = 0.5
MIN_SEGMENT_S = 0.1
YIELD_S = 2.0  # within which an interruption must silence the agent
FALSE_YIELD_S = 1.0  # within which anything else must not
FALSE_ANSWER_S = 2.0
SOON_S = 0.4  # behind a sound; the next one comes later
TOLD_LATE_S = 0.1  # at most: behind its first sound, that a reply is played
OVERTAKEN_S = 0.3  # at most, where sound and events come over a network of their own
AT_ONCE_S = 0.1  # an answer that begins so near to the onset of speech did not hear it

Segment = tuple[float, float]


@dataclass(slots=True)
class Tally:
    """Figures of one or more conversations; lists hold one value for each case.

    `latencies_s` is of the first answer behind a turn's end; of a turn that has none there, of what
    came before it was over. `num_cut_off` turns had something said into them. `false_yields` counts
    from the onset of a sound, as benches of others do; `late_false_yields` until the sound has
    ended, which may be much later.
    """

    latencies_s: list[float] = field(default_factory=list)
    num_turns: int = 0
    num_answered: int = 0
    num_cut_off: int = 0
    num_in_pause: int = 0
    num_over_speech: int = 0
    yields_s: list[float] = field(default_factory=list)
    num_interruptions: int = 0
    false_yields: dict[str, list[bool]] = field(default_factory=dict)
    late_false_yields: dict[str, list[bool]] = field(default_factory=dict)
    false_stop_gaps_s: list[float] = field(default_factory=list)
    num_false_stops: int = 0
    leaks_ms: list[float] = field(default_factory=list)
    word_errors: list[int] = field(default_factory=list)
    freshness_s: list[float] = field(default_factory=list)
    num_underruns: int = 0
    agent_s: float = 0.0
    num_kept: int = 0
    num_wasted: int = 0
    wasted_frames: int = 0

    def add(self, other: Tally) -> None:
        """Take in the figures of other conversations."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, dict):
                for sort, errors in theirs.items():
                    mine.setdefault(sort, []).extend(errors)
            else:
                setattr(self, each.name, mine + theirs)


def segments(
    pcm: Pcm16,
    *,
    max_gap_s: float = MAX_GAP_S,
    min_s: float = MIN_SEGMENT_S,
    begins_s: Sequence[float] = (),
) -> list[Segment]:
    """Where the agent speaks. pcm: [num_samples] int16 at 24 kHz; see the module's docstring.

    begins_s: when it was told that a reply is heard, about when its first sound was; a gap there
    is not closed.
    """
    size = round(FRAME_S * ENGINE_OUTPUT_HZ)
    frames = pcm[: len(pcm) // size * size].reshape(-1, size).astype(np.float64) / 32768
    loud = np.sqrt(np.mean(np.square(frames), axis=1)) > 10 ** (LOUD_DBFS / 20)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
    found: list[Segment] = []
    for start, end in zip(edges[::2] * FRAME_S, edges[1::2] * FRAME_S, strict=True):
        is_new = not found or any(found[-1][1] <= s <= start + OVERTAKEN_S for s in begins_s)
        if not is_new and start - found[-1][1] <= max_gap_s:
            found[-1] = (found[-1][0], float(end))
        else:
            found.append((float(start), float(end)))
    return [(a, b) for a, b in found if b - a >= min_s]


def measure(recording: Recording, tally: Tally) -> None:
    """Add one conversation's figures."""
    agent = segments(recording.agent, begins_s=_times(recording, events.OutputStarted))
    _answers(recording.said, agent, tally)
    _yields(recording, agent, tally)
    _leaks(recording, tally)
    tally.word_errors += [abs(heard - kept) for heard, kept in recording.cuts]
    tally.freshness_s += recording.picture_ages_s
    tally.agent_s += sum(b - a for a, b in agent)
    tally.num_underruns += recording.num_underruns
    for _, event in recording.told:
        if isinstance(event, events.Speculated):
            tally.num_kept += event.is_kept
            tally.num_wasted += not event.is_kept
            tally.wasted_frames += event.audio_tokens


def _answers(said: list[Said], agent: list[Segment], tally: Tally) -> None:
    turns = [s for s in said if s.sort in ("turn", "interruption")]
    starts = [start for start, _ in agent]
    for index, turn in enumerate(turns):
        tally.num_turns += 1
        until = turns[index + 1].on_s if index + 1 < len(turns) else np.inf
        early = [s for s in starts if turn.on_s + AT_ONCE_S < s < turn.off_s]
        late = [s for s in starts if turn.off_s <= s < until]
        in_pause = [s for s in early if any(a <= s <= b for a, b in turn.pauses)]
        tally.num_in_pause += len(in_pause)
        tally.num_over_speech += len(early) - len(in_pause)
        tally.num_cut_off += bool(early)
        if late or early:
            tally.num_answered += 1
            tally.latencies_s.append((late or early)[0] - turn.off_s)


def _yields(recording: Recording, agent: list[Segment], tally: Tally) -> None:
    closed = segments(recording.agent, max_gap_s=0.0)
    for said in recording.said:
        if said.sort == "turn":
            continue
        spoken = next(((a, b) for a, b in agent if a <= said.on_s < b), None)
        if said.sort == "interruption":
            if spoken is None:
                continue
            yield_s = spoken[1] - said.on_s
            if yield_s > YIELD_S or not _ended(recording, said.on_s, spoken[1]):
                tally.num_interruptions += 1
                tally.yields_s += [yield_s] if yield_s <= YIELD_S else []
            continue
        errors = tally.false_yields.setdefault(said.sort, [])
        late_errors = tally.late_false_yields.setdefault(said.sort, [])
        if spoken is None:
            starts = [a for a, _ in agent if a > said.on_s]
            errors.append(any(start < said.on_s + FALSE_ANSWER_S for start in starts))
            late_errors.append(any(start < said.off_s + FALSE_ANSWER_S for start in starts))
            continue
        is_short = spoken[1] - said.on_s <= FALSE_YIELD_S
        errors.append(is_short and not _ended(recording, said.on_s, spoken[1]))
        late_errors.append(_was_cut(recording, said))
        _false_stop(closed, said, spoken, tally)


def _was_cut(recording: Recording, said: Said) -> bool:
    """Whether a reply was cut while this sounded, or soon after."""
    return any(
        isinstance(event, events.OutputCleared) and said.on_s < time_s < said.off_s + SOON_S
        for time_s, event in recording.told
    )


def _ended(recording: Recording, from_s: float, at_s: float) -> bool:
    """Whether a reply that fell silent then was played to its end, not cut since `from_s`."""
    until_s = at_s + TOLD_LATE_S
    cleared = _times(recording, events.OutputCleared)
    if any(from_s < time_s <= until_s for time_s in cleared):
        return False
    stopped = _times(recording, events.OutputStopped)
    return any(abs(time_s - at_s) < 2 * MAX_GAP_S for time_s in stopped)


def _times(recording: Recording, kind: type[events.SessionEvent]) -> list[float]:
    return [time_s for time_s, event in recording.told if isinstance(event, kind)]


def _false_stop(closed: list[Segment], said: Said, spoken: Segment, tally: Tally) -> None:
    """A reply that fell silent for what was no interruption: did it come back, and how soon?"""
    pieces = [(a, b) for a, b in closed if spoken[0] <= a and b <= spoken[1] + 1e-6]
    gaps = [
        after[0] - before[1]
        for before, after in itertools.pairwise(pieces)
        if said.on_s < before[1] < said.on_s + FALSE_YIELD_S
    ]
    if spoken[1] - said.on_s <= FALSE_YIELD_S:
        tally.num_false_stops += 1
    elif gaps and max(gaps) > 0.1:
        tally.num_false_stops += 1
        tally.false_stop_gaps_s.append(max(gaps))


def _leaks(recording: Recording, tally: Tally) -> None:
    """Milliseconds from the decision to stop a reply to the last of it that sounds, before the
    next one begins.
    """
    raw = segments(recording.agent, max_gap_s=0.0, min_s=0.0)
    told = _times(recording, events.OutputStarted)
    agent = segments(recording.agent, begins_s=told)
    for cleared_s in _times(recording, events.OutputCleared):
        next_s = min((at_s for at_s in told if at_s > cleared_s), default=np.inf)
        # Over a network its sound may come well before the event that tells of it.
        sounds = [a for a, b in agent if cleared_s < a <= next_s <= b]
        until_s = min(sounds, default=next_s - TOLD_LATE_S)
        left = [min(b, until_s) - cleared_s for a, b in raw if a < until_s and b > cleared_s]
        tally.leaks_ms.append(1000 * max(left, default=0.0))
