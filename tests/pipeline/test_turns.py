"""The turn machine by tables: one row of probabilities in, edges with their positions out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.session_config import TurnDetection
from pipeline.turns import EchoGuard, Edge, SpeechStart, SpeechStop, TurnMachine

W = 512
SETTINGS = TurnDetection(threshold=0.5, prefix_padding_ms=64, silence_duration_ms=96)


def run(
    probabilities: list[float],
    settings: TurnDetection = SETTINGS,
    *,
    guarded: bool = False,
    machine: TurnMachine | None = None,
    first_window: int = 0,
) -> list[Edge]:
    machine = machine or TurnMachine(settings)
    edges = []
    for index, probability in enumerate(probabilities, start=first_window):
        edge = machine.feed(
            probability,
            start_sample=index * W,
            end_sample=(index + 1) * W,
            is_guarded=guarded,
        )
        edges += [edge] if edge else []
    return edges


def start(window: int, *, padding_ms: int = 64) -> SpeechStart:
    return SpeechStart(at_sample=max(0, window * W - padding_ms * 16))


def stop(window: int, speech_end: int) -> SpeechStop:
    return SpeechStop(at_sample=window * W, speech_end_sample=speech_end * W)


@pytest.mark.parametrize(
    ("name", "probabilities", "edges"),
    [
        ("silence", [0.0] * 20, []),
        ("a click is too short", [0, 0.9, 0, 0, 0.9, 0], []),
        ("two windows start, back-dated with padding", [0, 0, 0, 0.9, 0.9], [start(3)]),
        ("padding can not reach before the beginning", [0.9, 0.9], [start(0)]),
        ("exactly at the threshold counts", [0, 0, 0, 0.5, 0.5], [start(3)]),
        ("between the thresholds keeps a beginning", [0, 0, 0, 0.6, 0.4], [start(3)]),
        ("below the lower one drops it", [0, 0, 0, 0.6, 0.3, 0.6, 0.6], [start(5)]),
        ("silence ends", [0, 0, 0.9, 0.9, 0, 0, 0, 0], [start(2), stop(7, 4)]),
        ("a pause that is too short does not", [0, 0, 0.9, 0.9, 0, 0, 0.9, 0, 0], [start(2)]),
        ("hysteresis keeps speech", [0, 0, 0.9, 0.9, 0.4, 0.4, 0.4, 0.4], [start(2)]),
        (
            "two turns; the second can not reach into the first",
            [0, 0, 0.9, 0.9, 0, 0, 0, 0.9, 0.9, 0, 0, 0],
            [start(2), stop(7, 4), start(7, padding_ms=0), stop(12, 9)],
        ),
    ],
)
def test_table(name: str, probabilities: list[float], edges: list[Edge]) -> None:
    assert run(probabilities) == edges, name


def test_settings_may_change_inside_a_turn() -> None:
    machine = TurnMachine(SETTINGS)
    assert run([0, 0, 0.9, 0.9], machine=machine) == [start(2)]
    machine.configure(TurnDetection(silence_duration_ms=32))
    assert run([0.0], machine=machine, first_window=4) == [stop(5, 4)]


def test_reset_forgets_the_turn_and_floors_the_next() -> None:
    machine = TurnMachine(SETTINGS)
    run([0, 0, 0.9, 0.9], machine=machine)
    machine.reset(4 * W)
    assert not machine.is_speaking
    assert run([0.9, 0.9], machine=machine, first_window=4) == [SpeechStart(at_sample=4 * W)]


@pytest.mark.parametrize(
    ("name", "probabilities", "num_edges"),
    [
        ("weak echo stays under the raised threshold", [0.6] * 20, 0),
        ("choppy echo never lasts", [0.9, 0.9, 0.2] * 8, 0),
        ("a person comes through", [0.9] * 5, 1),
        ("not before the longer minimum", [0.9] * 4, 0),
    ],
)
def test_echo_guard(name: str, probabilities: list[float], num_edges: int) -> None:
    assert len(run(probabilities, guarded=True)) == num_edges, name


def test_echo_guard_never_makes_speech_impossible() -> None:
    strict = TurnDetection(threshold=0.9)
    machine = TurnMachine(strict, echo_guard=EchoGuard(threshold_boost=0.5, min_speech_ms=64))
    assert len(run([0.96, 0.96], machine=machine, guarded=True)) == 1


@given(st.lists(st.sampled_from([0.0, 0.3, 0.4, 0.6, 1.0]), max_size=60))
def test_edges_alternate_and_never_overlap(probabilities: list[float]) -> None:
    edges = run(probabilities)
    positions = []
    for index, edge in enumerate(edges):
        assert isinstance(edge, SpeechStart if index % 2 == 0 else SpeechStop)
        positions.append(edge.at_sample)
        if isinstance(edge, SpeechStop):
            assert edge.at_sample - edge.speech_end_sample >= 96 * 16
    assert positions == sorted(positions)
