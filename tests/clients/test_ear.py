"""The ear of the benchmarks: when what comes late, out of order or never is heard."""

from __future__ import annotations

import fractions

import numpy as np
import pytest
from aiortc.codecs.opus import OpusEncoder
from av import AudioFrame

from clients.bench.ear import CLOCK_HZ, PACKET_SAMPLES, Ear, Heard

PACKET_S = PACKET_SAMPLES / CLOCK_HZ
NETWORK_S = 0.04
START = 2**32 - 20 * PACKET_SAMPLES  # the timestamp wraps on the way


def packets(*, loud: slice, quiet: tuple[int, ...], count: int = 300) -> list[bytes]:
    """A tone from one packet to another but for the `quiet` ones, silence before and behind."""
    encoder, made = OpusEncoder(), []
    for number in range(count):
        is_loud = number in range(count)[loud] and number not in quiet
        times = (np.arange(PACKET_SAMPLES) + number * PACKET_SAMPLES) / CLOCK_HZ
        pcm = (is_loud * 8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
        frame = AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = CLOCK_HZ, number * PACKET_SAMPLES
        frame.time_base = fractions.Fraction(1, CLOCK_HZ)
        made += encoder.encode(frame)[0]
    return made


def heard(
    lateness_s: dict[int, float | None], *, quiet: tuple[int, ...] = (), end: int = 150
) -> Heard:
    """The tone of packets 50 to `end`, some of which are late, or never come (None)."""
    ear = Ear()
    came = [
        (number * PACKET_S + NETWORK_S + late_s, number, payload)
        for number, payload in enumerate(packets(loud=slice(50, end), quiet=quiet))
        if (late_s := lateness_s.get(number, 0.0)) is not None
    ]
    for at_s, number, payload in sorted(came):
        ear.take((START + number * PACKET_SAMPLES) % 2**32, payload, at_s)
    return ear.heard(0.0, 7.0)


def loud_s(sound: Heard) -> list[tuple[float, float]]:
    """Where it is loud, to 10 ms."""
    frames = np.abs(sound.pcm.reshape(-1, CLOCK_HZ // 100).astype(np.int32)).max(axis=1) > 500
    edges = np.flatnonzero(np.diff(np.concatenate([[0], frames.astype(int), [0]]))) / 100
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def test_what_comes_in_time_is_heard_behind_the_network_and_no_later() -> None:
    sound = heard({})
    assert loud_s(sound) == [(pytest.approx(1.05, abs=0.021), pytest.approx(3.05, abs=0.021))]
    assert (sound.num_breaks, sound.missing_share) == (0, 0.0)


def test_jitter_is_waited_for_and_order_is_restored() -> None:
    rng = np.random.default_rng(1)
    sound = heard({number: float(rng.uniform(0, 0.04)) for number in range(300)})
    ((start, end),) = loud_s(sound)
    assert start == pytest.approx(1.09, abs=0.03)
    assert end - start == pytest.approx(2.0, abs=0.03)
    assert sound.missing_share == 0.0


def test_what_never_comes_is_a_hole_and_a_long_one_breaks_the_sound() -> None:
    sound = heard({80: None, 100: None, 101: None, 102: None, 103: None})
    assert sound.num_breaks == 1
    assert sound.missing_share == pytest.approx(5 / 300)
    assert any(end == pytest.approx(2.05, abs=0.03) for _, end in loud_s(sound))


def test_a_stall_makes_the_rest_later_until_there_is_silence() -> None:
    stalled = {number: max(0.0, 0.2 - (number - 80) * PACKET_S) for number in range(80, 90)}
    sound = heard(stalled)
    assert sound.num_breaks == 1
    (_, first_end), (start, end) = loud_s(sound)
    assert start - first_end == pytest.approx(0.2, abs=0.03)
    assert end == pytest.approx(3.25, abs=0.03)
    assert sound.missing_share == 0.0


def test_waiting_is_taken_back_in_silence_and_no_sound_is_lost_by_it() -> None:
    stalled = {number: max(0.0, 0.4 - (number - 60) * PACKET_S) for number in range(60, 80)}
    quiet = (185, 186, 187)  # a short silence, when the stall has been forgotten
    sound = heard(stalled, quiet=quiet, end=250)
    (_, stall), (_, silence), (_, end) = loud_s(sound)
    assert sum(b - a for a, b in loud_s(sound)) == pytest.approx(4.0 - 0.06, abs=0.05)
    assert (stall, silence) == (pytest.approx(1.25, abs=0.03), pytest.approx(4.15, abs=0.03))
    assert end < 5.05 + 0.4
