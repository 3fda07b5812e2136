"""Paced output of one session at 24 kHz.

What is written is played in order, cut at once, known to the sample.

Holds no timer: whoever plays (an RTP track) calls `read` for each packet, and that is the clock.
All calls come from one event loop. Bound: beyond `MAX_QUEUED_SAMPLES` the writer should wait
(`wait_for_room`); nothing that was written is ever dropped but by `clear`, which leaves a few
milliseconds of fade so that the cut does not click.

Where a reply is made too slowly, the gap is faded into and out of, too. How much is kept before a
reply sounds (`lead_samples`) adapts to that: nothing at first, because the first sound should come
at once; after a gap as much as would have covered it; half after each reply without one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.messages import ENGINE_OUTPUT_HZ, Pcm16

MAX_QUEUED_SAMPLES = 120 * ENGINE_OUTPUT_HZ
FADE_SAMPLES = ENGINE_OUTPUT_HZ * 4 // 1000
MAX_LEAD_SAMPLES = ENGINE_OUTPUT_HZ * 240 // 1000  # three codec frames
_MIN_LEAD_SAMPLES = ENGINE_OUTPUT_HZ // 50  # less than a packet is none
RAMP_SAMPLES = ENGINE_OUTPUT_HZ * 10 // 1000  # of a change of loudness
DUCKED = 0.25  # -12 dB


@dataclass(slots=True)
class _Queued:
    """One reply's speech that is not played yet.

    `is_dry`: it is silent, until enough has come. `gap_samples`: how long it has had nothing now.
    """

    response_id: str
    chunks: deque[Pcm16] = field(default_factory=deque)
    num_queued: int = 0
    num_played: int = 0
    is_finished: bool = False
    is_dry: bool = True
    gap_samples: int = 0
    has_gaps: bool = False


class Playout:
    """A clearable queue of speech.

    Args:
        on_started / on_stopped: called with the response id when its first sample is read, and when
            its last one has been read after `finish`. A conversation that is given this playout
            puts its own in their place.
    """

    def __init__(
        self,
        *,
        on_started: Callable[[str], None] = lambda _: None,
        on_stopped: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.on_started = on_started
        self.on_stopped = on_stopped
        self._replies: deque[_Queued] = deque()
        self._played: dict[str, int] = {}
        self._cleared_id: str | None = None
        self._fade = np.zeros(0, np.int16)
        self._newest = np.zeros(0, np.int16)
        self._lead_samples = 0
        self._gain = self._wanted_gain = 1.0
        self._num_queued = 0
        self._num_underruns = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    # ------------------------------------------------------------------ writing
    def write(self, response_id: str, pcm: Pcm16) -> None:
        """Queue more speech of a reply. pcm: [num_samples] int16, kept, not copied.

        Ignored after `clear`.
        """
        if response_id == self._cleared_id or not len(pcm):
            return
        queued = self._entry(response_id)
        queued.chunks.append(pcm)
        queued.num_queued += len(pcm)
        self._num_queued += len(pcm)
        self._note_room()

    def finish(self, response_id: str) -> None:
        """No more speech of this reply will come."""
        for queued in self._replies:
            if queued.response_id == response_id:
                queued.is_finished = True
        self._retire()

    def clear(self) -> tuple[str, int] | None:
        """Cut at once.

        Returns the reply that was being played and how many of its samples were read, or None.
        """
        if not self._replies:
            return None
        first = self._replies[0]
        self._cleared_id = self._replies[-1].response_id
        started = (first.response_id, first.num_played) if first.num_played else None
        self._fade = _fade_out(first, self._gain) if started else self._fade
        self._replies.clear()
        self._gain = self._wanted_gain = 1.0
        self._num_queued = 0
        self._note_room()
        return started

    async def wait_for_room(self) -> None:
        """Wait while more than the bound is queued. Safe to cancel; `clear` ends the wait."""
        await self._has_room.wait()

    # ------------------------------------------------------------------ loudness
    def duck(self) -> None:
        """Play on, softer."""
        self._wanted_gain = DUCKED

    def hold(self) -> None:
        """Fall silent within a few milliseconds and stay where it is."""
        self._wanted_gain = 0.0

    def resume(self) -> None:
        """Go on where it stopped, as loud as it was."""
        self._wanted_gain = 1.0

    # ------------------------------------------------------------------ reading
    def read(self, num_samples: int) -> Pcm16:
        """The next samples to play.

        Silence where there is nothing (counted as underrun inside a reply).
        """
        out = np.zeros(num_samples, np.int16)
        filled = self._read_fade(out)
        num_samples = min(num_samples, filled + self._num_until_held())
        first_speech = filled
        while filled < num_samples and self._replies:
            first = self._replies[0]
            if first.is_dry and not self._has_enough(first):
                break
            if not first.chunks:
                self._run_dry(first)
                self._read_fade(out[filled:num_samples])
                break
            filled += self._read_chunk(first, out[filled:num_samples])
            self._retire()
        self._apply_gain(out[first_speech:filled])
        self._note_gap(num_samples - filled)
        self._note_room()
        return out

    def played_samples(self, response_id: str) -> int:
        """How many samples of this reply have been read."""
        return self._played.get(response_id, 0)

    @property
    def is_playing(self) -> bool:
        """Whether a reply has begun to sound and has not ended."""
        return bool(self._replies) and self._replies[0].num_played > 0

    @property
    def num_underruns(self) -> int:
        """Reads inside an unfinished reply that had to be filled with silence."""
        return self._num_underruns

    @property
    def lead_samples(self) -> int:
        """How much of a reply is kept before it sounds."""
        return self._lead_samples

    # ------------------------------------------------------------------ gaps
    def _has_enough(self, queued: _Queued) -> bool:
        return bool(queued.chunks) and (
            queued.is_finished or queued.num_queued >= self._lead_samples
        )

    def _run_dry(self, queued: _Queued) -> None:
        """What was played last, backwards and fading, leads into the gap."""
        queued.is_dry = queued.has_gaps = True
        back = self._newest[::-1].astype(np.float32)
        falling = np.linspace(self._gain, 0, len(back), endpoint=False)
        self._fade = np.asarray(back * falling, np.int16)

    def _note_gap(self, num_silent: int) -> None:
        """Count silence inside a reply; one whose first sample was not read yet is only late."""
        first = self._replies[0] if self._replies else None
        if first is None or not num_silent or not first.num_played:
            return
        self._num_underruns += 1
        if not first.chunks:
            first.gap_samples += num_silent

    def _end_gap(self, queued: _Queued) -> None:
        queued.is_dry = False
        wanted = max(self._lead_samples, queued.gap_samples)
        self._lead_samples = min(wanted, MAX_LEAD_SAMPLES)
        queued.gap_samples = 0

    # ------------------------------------------------------------------ parts
    def _entry(self, response_id: str) -> _Queued:
        for queued in self._replies:
            if queued.response_id == response_id:
                return queued
        queued = _Queued(response_id)
        self._replies.append(queued)
        return queued

    def _num_until_held(self) -> int:
        """How many samples are still to be read: none but the ramp of what is held."""
        return MAX_QUEUED_SAMPLES if self._wanted_gain else round(self._gain * RAMP_SAMPLES)

    def _apply_gain(self, speech: Pcm16) -> None:
        """Scale in place; the gain moves by full scale in `RAMP_SAMPLES`."""
        if self._gain == self._wanted_gain == 1.0:
            return
        way = self._wanted_gain - self._gain
        steps = np.arange(1, len(speech) + 1) / RAMP_SAMPLES
        gains = self._gain + np.sign(way) * np.minimum(steps, abs(way))
        speech[:] = np.asarray(speech * gains, np.int16)
        if len(speech):
            self._gain = self._wanted_gain if steps[-1] >= abs(way) else float(gains[-1])

    def _read_fade(self, out: Pcm16) -> int:
        count = min(len(out), len(self._fade))
        out[:count] = self._fade[:count]
        self._fade = self._fade[count:]
        return count

    def _read_chunk(self, queued: _Queued, out: Pcm16) -> int:
        chunk = queued.chunks.popleft()
        count = min(len(out), len(chunk))
        out[:count] = chunk[:count]
        if count < len(chunk):
            queued.chunks.appendleft(chunk[count:])
        is_first = queued.num_played == 0
        if queued.is_dry:
            self._end_gap(queued)
            if not is_first:
                _fade_in(out[:count])
        self._newest = np.concatenate([self._newest, out[:count]])[-FADE_SAMPLES:]
        queued.num_played += count
        self._played[queued.response_id] = queued.num_played
        queued.num_queued -= count
        self._num_queued -= count
        if is_first:
            self._forget_old()
            self.on_started(queued.response_id)
        return count

    def _retire(self) -> None:
        """Take replies out that were played to their end."""
        while self._replies and self._replies[0].is_finished and not self._replies[0].chunks:
            done = self._replies.popleft()
            if not done.has_gaps:
                half = self._lead_samples // 2
                self._lead_samples = half if half >= _MIN_LEAD_SAMPLES else 0
            if done.num_played:
                self.on_stopped(done.response_id)

    def _forget_old(self) -> None:
        """Keep the counts of the latest replies only."""
        while len(self._played) > 64:
            del self._played[next(iter(self._played))]

    def _note_room(self) -> None:
        if self._num_queued > MAX_QUEUED_SAMPLES:
            self._has_room.clear()
        else:
            self._has_room.set()


def _fade_out(queued: _Queued, gain: float) -> Pcm16:
    """What would have been played next, falling to silence; not counted as heard."""
    if queued.is_dry or not queued.chunks:
        return np.zeros(0, np.int16)
    head = queued.chunks[0][:FADE_SAMPLES].astype(np.float32)
    return np.asarray(head * np.linspace(gain, 0, len(head), endpoint=False), np.int16)


def _fade_in(pcm: Pcm16) -> None:
    """Let the first samples rise from silence, in place."""
    count = min(len(pcm), FADE_SAMPLES)
    pcm[:count] = (pcm[:count] * np.linspace(0, 1, count, endpoint=False)).astype(np.int16)
