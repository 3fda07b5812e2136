"""The measuring core: what one turn looked like from the client. Sans-I/O: times and samples in,
numbers out.

It opens no socket and reads no clock, so every rule can be tested with made-up times. All times are
monotonic seconds, all samples int16 mono. Who feeds it is `clients.bench.talk`.

The main number is the time from the end of the user's speech (the last sample that is not silent)
to the first sample of the reply that is not silent, both as this client sent and received them. It
is signed: a server that answers before the user has finished is negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Pcm16 = npt.NDArray[np.int16]

SILENT_PEAK = 184  # -45 dBFS: below it a sample counts as silence
PLAYER_BUFFER_S = (
    0.060  # a player that starts this long after the first packet rides out ordinary jitter
)
QUIET_END_S = 1.0  # a reply without `output_audio_buffer.stopped` has ended after this much silence
SERVER_STAGES = ("turn_end", "encoder_tail", "prefill", "first_text", "first_codec", "first_pcm")
STAGES = (*SERVER_STAGES, "received")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """One turn, measured. `reason` says why it failed, None where it did not."""

    reason: str | None
    first_audio_ms: float | None
    stages_ms: Mapping[str, float | None]
    num_underruns: int
    reply_s: float
    transcript: str
    num_interrupted: int

    @property
    def is_ok(self) -> bool:
        """Whether an audible reply came and ended as it should."""
        return self.reason is None


def first_loud_sample(pcm: Pcm16) -> int | None:
    """Index of the first sample that is not silent."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > SILENT_PEAK)
    return int(loud[0]) if len(loud) else None


def end_of_speech(pcm: Pcm16) -> int | None:
    """Index just after the last sample that is not silent."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > SILENT_PEAK)
    return int(loud[-1]) + 1 if len(loud) else None


@dataclass(slots=True)
class Player:
    """A loudspeaker in thought, which plays what has arrived and counts how often it runs dry."""

    ends_at: float | None = None
    num_underruns: int = 0

    def add(self, duration_s: float, at: float) -> float:
        """Takes a packet that arrived at `at`; returns when its first sample would be heard."""
        if self.ends_at is None:
            starts_at = at
        elif at > self.ends_at + PLAYER_BUFFER_S:
            self.num_underruns += 1
            starts_at = at
        else:
            starts_at = self.ends_at
        self.ends_at = starts_at + duration_s
        return max(starts_at, at)


@dataclass(slots=True)
class TurnMeter:
    """One turn while it happens.

    `is_paced`: the server sends audio in real time, silence too (WebRTC), and tells when its output
    stops; else audio comes only while it replies, as fast as it likes (WebSocket).
    """

    is_paced: bool
    speech_ended_at: float | None = None
    heard_at: float | None = None
    last_sound_at: float | None = None
    reply_s: float = 0.0
    player: Player = field(default_factory=Player)
    transcript: str = ""
    num_interrupted: int = 0
    _status: str | None = None
    _error: str | None = None
    _has_begun: bool = False
    _is_output_on: bool | None = None  # None: the server never said
    _server_stages: Mapping[str, Any] = field(default_factory=dict)
    _server_underruns: int = 0

    def speech_ended(self, at: float) -> None:
        """The last sample of the user's speech that is not silent was sent."""
        self.speech_ended_at = at

    def audio(self, pcm: Pcm16, rate_hz: int, at: float, *, missing_samples: int = 0) -> None:
        """Reply audio arrived; `missing_samples` were lost just before it."""
        if not self._has_begun or self._is_output_on is False:
            return
        loud = first_loud_sample(pcm)
        if self.is_paced and loud is None and self.heard_at is None:
            return  # the idle line, not the reply
        if missing_samples and self.heard_at is not None:
            self.player.num_underruns += 1
            self.player.ends_at = None
        starts_at = self.player.add(len(pcm) / rate_hz, at)
        if loud is None:
            return
        if self.heard_at is None:
            self.heard_at = starts_at + loud / rate_hz
        self.last_sound_at = starts_at + len(pcm) / rate_hz
        self.reply_s = self.last_sound_at - self.heard_at

    def event(self, event: Mapping[str, Any]) -> None:
        """An event of the server arrived."""
        match event.get("type"):
            case "response.created":
                self._has_begun, self._status = True, None
            case "response.output_audio_transcript.delta":
                self.transcript += str(event.get("delta", ""))
            case "output_audio_buffer.started":
                self._is_output_on = True
            case "output_audio_buffer.stopped" | "output_audio_buffer.cleared":
                self._is_output_on = False
            case "response.done":
                self._done(event.get("response") or {})
            case "x.metrics":
                self._server_stages = event.get("stages_ms") or {}
                self._server_underruns += int(event.get("num_underruns") or 0)
            case "error":
                self._error = str((event.get("error") or {}).get("message", "unknown error"))

    def _done(self, response: Mapping[str, Any]) -> None:
        details = response.get("status_details") or {}
        if response.get("status") == "cancelled" and details.get("reason") == "turn_detected":
            self._restart()  # the server took a pause for the end, and answers again
            return
        self._status = str(response.get("status"))
        if self._status == "failed":
            self._error = str((details.get("error") or {}).get("message", "no reason given"))

    def _restart(self) -> None:
        self.num_interrupted += 1
        self.heard_at = self.last_sound_at = None
        self.reply_s = 0.0
        self.player = Player(num_underruns=self.player.num_underruns)
        self._has_begun, self._is_output_on = False, None
        self.transcript = ""

    def is_over(self, now: float) -> bool:
        """Whether nothing more is to come of this turn."""
        if self.speech_ended_at is None or self._status is None:
            return False
        if not self.is_paced or self._is_output_on is False:
            return True
        quiet_since = self.last_sound_at or self.speech_ended_at
        return self._is_output_on is None and now - quiet_since > QUIET_END_S

    def result(self, failure: str | None = None) -> TurnResult:
        """What was measured. `failure`: ended from outside (a timeout, a closed connection)."""
        latency_ms = None
        if self.heard_at is not None and self.speech_ended_at is not None:
            latency_ms = (self.heard_at - self.speech_ended_at) * 1000
        stages = {name: self._server_stages.get(name) for name in SERVER_STAGES}
        return TurnResult(
            reason=self._failure(failure),
            first_audio_ms=latency_ms,
            stages_ms={**stages, "received": latency_ms},
            num_underruns=max(self.player.num_underruns, self._server_underruns),
            reply_s=self.reply_s,
            transcript=self.transcript.strip(),
            num_interrupted=self.num_interrupted,
        )

    def _failure(self, failure: str | None) -> str | None:
        if failure is not None:
            return f"{failure} (the server said: {self._error})" if self._error else failure
        if self._status == "failed":
            return f"the reply failed: {self._error}"
        if self._status == "cancelled":
            return "the reply was cancelled"
        if self.heard_at is None:
            return "the reply had no audible sound"
        return None
