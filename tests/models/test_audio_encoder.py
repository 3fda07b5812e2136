"""Audio encoder: equal to the reference, and window by window equal to the whole clip."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from oracle import Oracle
from parts import filled
from torch import Tensor

from models.errors import RequestError
from models.qwen3_omni.audio_encoder import AudioEncoder

Reference = Callable[[Tensor, int], Tensor]
WINDOWS = (100, 200, 800)
TOKENS = {
    1: 1,
    2: 1,
    3: 1,
    7: 1,
    8: 1,
    9: 2,
    10: 2,
    50: 7,
    99: 13,
    100: 13,
    101: 14,
    108: 14,
    109: 15,
    150: 20,
    199: 26,
    200: 26,
    201: 27,
    300: 39,
    801: 105,
    1000: 130,
    3000: 390,
    30000: 3900,
}


@pytest.fixture(scope="module")
def encoder(oracle: Oracle) -> AudioEncoder:
    with torch.device("meta"):
        module = AudioEncoder(oracle.config.thinker.audio)
    return filled(module, oracle, "thinker.audio_tower.")


@pytest.fixture(scope="module")
def reference(oracle: Oracle) -> Reference:
    """The reference's tokens of a whole clip; its window size is set and put back."""
    tower = oracle.model.thinker.model.audio_tower
    own = tower.n_window_infer

    def encode(mel: Tensor, window_frames: int) -> Tensor:
        tower.n_window_infer = tower.config.n_window_infer = window_frames
        with torch.inference_mode():
            output = tower(input_features=mel, feature_lens=torch.tensor([mel.shape[1]]))
        tower.n_window_infer = tower.config.n_window_infer = own
        tokens: Tensor = output.last_hidden_state
        return tokens

    return encode


def features(num_frames: int, seed: int = 0) -> Tensor:
    return torch.randn(128, num_frames, generator=torch.Generator().manual_seed(seed))


def encode(encoder: AudioEncoder, mel: Tensor, **options: int) -> Tensor:
    with torch.inference_mode():
        tokens: Tensor = encoder(mel, **options)
    return tokens


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("num_frames", [1, 5, 50, 99, 100, 101, 150, 200, 401, 800, 850, 2000])
def test_equals_reference(
    encoder: AudioEncoder, reference: Reference, window: int, num_frames: int
) -> None:
    mel = features(num_frames)
    ours = encode(encoder, mel, window_frames=window)
    assert ours.shape[0] == encoder.num_tokens(num_frames)
    assert_equal(ours, reference(mel, window))


def test_default_window_is_the_checkpoints(
    encoder: AudioEncoder, reference: Reference, oracle: Oracle
) -> None:
    mel, own = features(650), oracle.config.thinker.audio.n_window_infer
    assert_equal(encode(encoder, mel), reference(mel, own))
    other = encode(encoder, mel, window_frames=2 * own)
    assert (encode(encoder, mel) - other).abs().max() > 1e-2


@pytest.mark.parametrize("num_frames", TOKENS)
def test_number_of_tokens(encoder: AudioEncoder, num_frames: int) -> None:
    assert encoder.num_tokens(num_frames) == TOKENS[num_frames]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("num_frames", [830, 1600, 1700, 1701])
def test_window_by_window_equals_whole_clip(
    encoder: AudioEncoder, window: int, num_frames: int
) -> None:
    mel = features(num_frames)
    options = {"clip_frames": num_frames, "window_frames": window}
    parts = [
        encode(encoder, mel[:, start : start + window], **options)
        for start in range(0, num_frames, window)
    ]
    assert_equal(torch.cat(parts), encode(encoder, mel, window_frames=window))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("heard", [250, 799, 800, 1050])
def test_whole_windows_are_final(encoder: AudioEncoder, window: int, heard: int) -> None:
    mel = features(1_100)
    final_frames = encoder.num_final_frames(heard, window_frames=window)
    assert final_frames == heard // window * window
    final = encoder.num_tokens(final_frames)
    early = encode(encoder, mel[:, :heard], window_frames=window)
    late = encode(encoder, mel, window_frames=window)
    change = (early[: encoder.num_tokens(heard)] - late[: len(early)]).abs().amax(1)
    assert (change[:final] < 1e-5 * float(late.abs().max())).all()
    assert final == len(change) or change[final:].max() > 1e-3


def test_tail_is_padded_only_in_clips_of_a_whole_chunk(encoder: AudioEncoder) -> None:
    """A quirk that must be kept: nothing is masked between the convolutions."""
    tail = features(37)
    alone = encode(encoder, tail)
    in_clip = encode(encoder, tail, clip_frames=137)
    assert alone.shape == in_clip.shape
    assert (alone - in_clip).abs().max() > 1e-4
    padded = torch.nn.functional.pad(tail, (0, 63))
    with torch.inference_mode():
        before = encoder._downsample(tail, is_padded=True)
        assert_equal(before, encoder._downsample(padded, is_padded=True)[:5])


def test_long_clips_go_through_the_convolutions_in_steps(
    encoder: AudioEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mel = features(730)
    whole = encode(encoder, mel)
    monkeypatch.setattr("models.qwen3_omni.audio_encoder.CHUNKS_PER_STEP", 3)
    assert_equal(encode(encoder, mel), whole)


def test_features_may_be_a_transposed_view(encoder: AudioEncoder) -> None:
    mel = features(250)
    assert_equal(encode(encoder, mel.T.contiguous().T), encode(encoder, mel))


def test_bfloat16_stays_near_float32(encoder: AudioEncoder) -> None:
    """Eight bits of mantissa through the convolutions and two layers: within 3 % (RMS)."""
    half = deepcopy(encoder).bfloat16()
    half.build_constants(torch.device("cpu"))
    mel = features(450)
    tokens, expected = encode(half, mel.bfloat16()), encode(encoder, mel)
    assert tokens.dtype == torch.bfloat16
    error = (tokens.float() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()
    assert error < 0.03


@pytest.mark.parametrize("window", [-100, 0, 50, 150])
def test_odd_windows_are_refused(encoder: AudioEncoder, window: int) -> None:
    with pytest.raises(RequestError, match="multiple"):
        encode(encoder, features(100), window_frames=window)


def test_nothing_to_encode_is_refused(encoder: AudioEncoder) -> None:
    with pytest.raises(RequestError, match="no audio"):
        encode(encoder, features(0))
