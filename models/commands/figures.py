"""What `omnid bench engine` reports, from what it measured: sums only, no engine and no clock."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.commands.floor import Floor

OUTPUT_HZ = 24_000
FEW_TURNS = 5  # at each end of the long conversation; they are compared where no turn is in both
COMPARED = ("first_audio_ms", "frame_ms", "rtf", "reply_ms", "reply_cpu_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One measured reply: times from the end of the question. `cpu_ms` is this process's work for
    all of it, which other programs on the machine do not lengthen as they do the time.
    """

    first_audio_ms: float
    total_ms: float
    cpu_ms: float
    audio_s: float
    tokens_left: int
    text_ids: tuple[int, ...]
    codes: tuple[tuple[int, ...], ...]

    @property
    def frame_ms(self) -> float:
        """Each frame after the first, and the text token that comes with it."""
        return (self.total_ms - self.first_audio_ms) / max(1, len(self.codes) - 1)

    @property
    def rtf(self) -> float:
        """Time to make the reply, over its length."""
        return self.total_ms / 1000 / self.audio_s


def reply_figures(reply: Reply, floor: Floor) -> dict[str, float]:
    """One reply of our engine, and how much of its time the floor explains."""
    return {
        "first_audio_ms": round(reply.first_audio_ms, 2),
        "frame_ms": round(reply.frame_ms, 3),
        "rtf": round(reply.rtf, 4),
        "audio_s_per_s": round(1 / reply.rtf, 2),
        "tokens_left_at_turn_end": reply.tokens_left,
        "reply_ms": round(reply.total_ms, 1),
        "reply_cpu_ms": round(reply.cpu_ms, 1),
        "floor_reached": round((floor.token_ms + floor.frame_ms) / reply.frame_ms, 4),
    }


def turn_figures(turns: Sequence[Reply]) -> dict[str, float | None]:
    """The last turns of one conversation over its first ones, of each the median by time to first
    audio. None where there are too few to compare.
    """
    name = f"turn{len(turns)}_over_turn1"
    if len(turns) < 2 * FEW_TURNS:
        return {name: None, f"{name}_cpu": None, f"{name}_tokens": None}
    first, last = _median(turns[:FEW_TURNS]), _median(turns[-FEW_TURNS:])
    return {
        name: round(last.first_audio_ms / first.first_audio_ms, 3),
        f"{name}_cpu": round(last.cpu_ms / first.cpu_ms, 3),
        f"{name}_tokens": round(last.tokens_left / first.tokens_left, 3),
    }


def session_figures(firsts_s: Sequence[float], num_samples: int, took_s: float) -> dict[str, float]:
    """Sessions that were asked at once.

    Args:
        firsts_s: each one's time to first audio. num_samples: of all, made in `took_s`.
    """
    return {
        "first_audio_ms_p50": round(1000 * statistics.median(firsts_s), 2),
        "first_audio_ms_max": round(1000 * max(firsts_s), 2),
        "audio_s_per_s": round(num_samples / OUTPUT_HZ / took_s, 2),
    }


def batching_figures(
    together: Sequence[Mapping[str, float]], apart: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """The best of the runs together, and its speech a second over the best one's that made one
    thing at a time.
    """
    best = max(together, key=_speech_rate)
    one_by_one = max(map(_speech_rate, apart))
    gain = round(_speech_rate(best) / one_by_one, 2)
    return {**best, "audio_s_per_s_one_by_one": one_by_one, "batching_gain": gain}


def reference_figures(
    *, total_ms: float, cpu_ms: float, num_frames: int, audio_s: float
) -> dict[str, float]:
    """One reply of the reference, which gives its audio when all is made."""
    return {
        "first_audio_ms": round(total_ms, 1),
        "frame_ms": round(total_ms / num_frames, 3),
        "rtf": round(total_ms / 1000 / audio_s, 4),
        "audio_s_per_s": round(audio_s / (total_ms / 1000), 2),
        "reply_ms": round(total_ms, 1),
        "reply_cpu_ms": round(cpu_ms, 1),
    }


def ratios(theirs: Mapping[str, float], ours: Mapping[str, float]) -> dict[str, float]:
    """How many times ours the reference's are: above 1, it is slower."""
    return {key: round(theirs[key] / ours[key], 2) for key in COMPARED}


def _median(replies: Sequence[Reply]) -> Reply:
    return sorted(replies, key=_first_audio)[len(replies) // 2]


def _first_audio(reply: Reply) -> float:
    return reply.first_audio_ms


def _speech_rate(figures: Mapping[str, float]) -> float:
    return figures["audio_s_per_s"]
