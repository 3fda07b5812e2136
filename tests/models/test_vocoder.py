"""Vocoder: steps of any size give the samples of one pass over the whole reply."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from parts import filled
from torch import Tensor

from models.qwen3_omni.vocoder import Code2Wav, VocoderState

NUM_FRAMES = 24


@pytest.fixture(scope="module")
def code2wav(oracle: Oracle) -> Code2Wav:
    assert oracle.config.vocoder is not None
    with torch.device("meta"):
        module = Code2Wav(oracle.config.vocoder)
    return filled(module, oracle, "code2wav.")


@pytest.fixture(scope="module")
def expected(oracle: Oracle) -> Tensor:
    """The reference's samples of `codes()`."""
    with torch.inference_mode():
        pcm: Tensor = oracle.model.code2wav(codes().T[None])[0, 0]
    return pcm


def codes(num_frames: int = NUM_FRAMES, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2048, (num_frames, 16), generator=generator)


def run(code2wav: Code2Wav, frames: Tensor, state: VocoderState, sizes: list[int]) -> list[Tensor]:
    with torch.inference_mode():
        return [code2wav(part, state) for part in frames.split(sizes)]


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


@pytest.mark.parametrize("sizes", [[24], [1] * 24, [4, 1, 7, 10, 2], [1, 23]])
def test_equals_reference(code2wav: Code2Wav, expected: Tensor, sizes: list[int]) -> None:
    parts = run(code2wav, codes(), code2wav.new_state(), sizes)
    assert len(parts[0]) == code2wav.num_samples(sizes[0])
    assert all(len(p) == 1920 * n for p, n in zip(parts[1:], sizes[1:], strict=True))
    assert_equal(torch.cat(parts), expected)


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, NUM_FRAMES - 1)))
def test_any_cuts_give_the_whole(code2wav: Code2Wav, expected: Tensor, cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), NUM_FRAMES]
    sizes = [stop - start for start, stop in pairwise(edges)]
    state = code2wav.new_state()
    assert_equal(torch.cat(run(code2wav, codes(), state, sizes)), expected)
    assert state.num_frames == NUM_FRAMES


def test_number_of_samples(code2wav: Code2Wav) -> None:
    assert [code2wav.num_samples(n) for n in (0, 1, 2, 30)] == [0, 1365, 3285, 1920 * 30 - 555]
    assert code2wav.samples_per_frame == 1920


def test_later_frames_change_no_earlier_sample(code2wav: Code2Wav, expected: Tensor) -> None:
    other = torch.cat([codes()[:10], codes(6, seed=1)])
    whole = torch.cat(run(code2wav, other, code2wav.new_state(), [16]))
    final = code2wav.num_samples(10)
    assert_equal(whole[:final], expected[:final])
    assert (whole[final:] - expected[final : len(whole)]).abs().max() > 1e-2


@pytest.mark.parametrize("cut", [0, 1, 3, 9])
def test_a_copy_goes_on_from_its_place(code2wav: Code2Wav, cut: int) -> None:
    state = code2wav.new_state()
    if cut:
        run(code2wav, codes()[:cut], state, [cut])
    copy = state.copy()
    run(code2wav, codes(12, seed=5), state, [1] * 12)
    again = copy.copy()
    one = torch.cat(run(code2wav, codes()[cut:], copy, [1] * (NUM_FRAMES - cut)))
    two = torch.cat(run(code2wav, codes()[cut:], again, [1] * (NUM_FRAMES - cut)))
    straight = code2wav.new_state()
    whole = torch.cat(run(code2wav, codes(), straight, [1] * NUM_FRAMES))
    assert torch.equal(one, two)
    assert_equal(one, whole[code2wav.num_samples(cut) :])


def test_streams_do_not_touch_each_other(code2wav: Code2Wav, expected: Tensor) -> None:
    states = [code2wav.new_state() for _ in range(2)]
    others, parts = codes(seed=7), []
    for index in range(NUM_FRAMES):
        parts += run(code2wav, codes()[index : index + 1], states[0], [1])
        run(code2wav, others[index : index + 1], states[1], [1])
    assert_equal(torch.cat(parts), expected)


def test_streams_go_on_together_as_they_would_alone(code2wav: Code2Wav) -> None:
    starts = (1, 5, 100)
    alone, together = ([code2wav.new_state() for _ in starts] for _ in range(2))
    for states in (alone, together):
        for start, state in zip(starts, states, strict=True):
            run(code2wav, codes(start, seed=start), state, [start])
    for step in range(4):
        frames = codes(len(starts), seed=1000 + step)
        with torch.inference_mode():
            made = code2wav.next_frames(frames, together)
        for row, state in enumerate(alone):
            (expected,) = run(code2wav, frames[row : row + 1], state, [1])
            assert_equal(made[row], expected)
    assert [state.num_frames for state in together] == [start + 4 for start in starts]


def test_long_replies_lose_no_precision(code2wav: Code2Wav) -> None:
    """A stream moved a day ahead sounds the same once frames before the move are out of sight."""
    state, moved = code2wav.new_state(), code2wav.new_state()
    head, rest = codes()[:2], codes(40, seed=3)
    for each in (state, moved):
        run(code2wav, head, each, [2])
    moved.num_frames += 1_000_000
    plain = torch.cat(run(code2wav, rest, state, [1] * 40))
    later = torch.cat(run(code2wav, rest, moved, [1] * 40))
    assert (plain[: 4 * 1920] - later[: 4 * 1920]).abs().max() > 1e-4
    assert_equal(later[25 * 1920 :], plain[25 * 1920 :])


def test_output_is_clamped(code2wav: Code2Wav) -> None:
    loud = deepcopy(code2wav)
    with torch.no_grad():
        loud.decoder[-1].conv.weight.mul_(100)
    pcm = torch.cat(run(loud, codes(), loud.new_state(), [NUM_FRAMES]))
    assert pcm.abs().max() == 1.0
