"""What the judges hear, on sounds whose pitch, loudness and length are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.endpointing import WAITS, wait_ms
from pipeline.listening import end_of_turn, interruption
from pipeline.listening.end_of_turn import JudgeUnavailableError
from pipeline.listening.interruption import KINDS, VoiceLevel, loud_db
from pipeline.listening.judges import load_judges, our_judges
from pipeline.listening.prosody import analyse
from pipeline.messages import ENGINE_INPUT_HZ, Pcm, Reading


def buzz(seconds: float, first_hz: float, last_hz: float, *, level: float = 0.2) -> Pcm:
    """A voice of ten harmonics whose pitch glides."""
    hz = np.linspace(first_hz, last_hz, round(seconds * ENGINE_INPUT_HZ))
    phase = 2 * np.pi * np.cumsum(hz) / ENGINE_INPUT_HZ
    made = sum(np.sin(k * phase) / k for k in range(1, 11))
    return (level * made / np.std(made)).astype(np.float32)


def hush(seconds: float) -> Pcm:
    return np.zeros(round(seconds * ENGINE_INPUT_HZ), np.float32)


@pytest.mark.parametrize("hz", [80, 120, 200, 330])
def test_pitch_is_found_within_a_quarter_tone(hz: float) -> None:
    frames = analyse(buzz(0.5, hz, hz))
    assert frames.voiced.mean() > 0.95
    assert np.abs(frames.f0[frames.voiced] - np.log2(hz)).max() < 1 / 24


def test_noise_and_silence_have_no_voice() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, ENGINE_INPUT_HZ).astype(np.float32)
    assert analyse(noise).voiced.mean() < 0.05
    assert not analyse(hush(0.5)).voiced.any()


def test_a_level_is_that_of_the_speech_and_not_of_the_pauses() -> None:
    said = np.concatenate([hush(1), buzz(1, 120, 100, level=0.1), hush(2)])
    assert loud_db(said) == pytest.approx(-20, abs=1)
    level = VoiceLevel()
    level.learn(said)
    assert level.usual_db == pytest.approx(-20, abs=1)
    level.learn(said * 0.1)
    assert -28 < level.usual_db < -24


@pytest.mark.parametrize("gain", [0.03, 1.0, 4.0])
def test_how_loud_a_turn_is_does_not_change_the_judgement(gain: float) -> None:
    turn = np.concatenate([buzz(1.2, 140, 90), hush(0.15)])
    room = np.random.default_rng(1).normal(0, 0.001, len(turn))  # a buzz alone ends at 1.4 kHz
    turn += room.astype(np.float32)
    usual = our_judges().end_of_turn.probability(turn)
    assert our_judges().end_of_turn.probability(turn * gain) == pytest.approx(usual, abs=0.05)


@pytest.mark.parametrize("num_samples", [0, 1, 500, 5_000, 200_000])
def test_any_length_is_judged(num_samples: int) -> None:
    sound = np.random.default_rng(2).normal(0, 0.1, num_samples).astype(np.float32)
    assert np.isfinite(end_of_turn.features(sound)).all()
    assert np.isfinite(interruption.features(sound, usual_db=-26)).all()
    assert 0 <= our_judges().end_of_turn.probability(sound) <= 1
    kinds = our_judges().interruption.kinds(sound, usual_db=-26)
    assert tuple(kinds) == KINDS
    assert sum(kinds.values()) == pytest.approx(1, abs=1e-4)


def test_words_count_beside_the_sound() -> None:
    turn = np.concatenate([buzz(1.2, 140, 90), hush(0.15)])
    fields = dict.fromkeys(Reading.__dataclass_fields__, 0.0)
    said = fields | {"num_words": 4.0, "sure_last": 1.0, "sure_mean": 1.0, "tokens_since": 3.0}
    known = {f"seen_{length}": 4.0 for length in (1, 2, 3)}
    ends = dict.fromkeys(("end_after_1", "end_after_2", "end_after_3", "end"), -0.05)
    goes_on = dict.fromkeys(ends, -6.0)
    judge = our_judges().end_of_turn
    whole = judge.probability(turn, Reading(**said | known | ends))
    begun = judge.probability(turn, Reading(**said | known | goes_on))
    assert whole > 0.8 > 0.5 > begun
    foreign = Reading(**said | known | goes_on | {"unknown_share": 0.25})
    assert judge.probability(turn, foreign) == judge.probability(turn)


def test_the_surer_and_the_more_eager_the_shorter_the_wait() -> None:
    for waits in WAITS.values():
        assert waits.sure_ms < waits.doubtful_ms
    found = [[wait_ms(p / 10, e) for p in range(11)] for e in ("high", "medium", "low")]
    for row in found:
        assert row == sorted(row, reverse=True)
    assert all(a < b < c for a, b, c in zip(*found, strict=True))
    assert found[1][0] == WAITS["medium"].doubtful_ms
    assert found[1][10] == WAITS["medium"].sure_ms


def test_a_smart_turn_network_that_can_not_be_used_says_why(tmp_path: Path) -> None:
    assert load_judges(None) is our_judges()
    with pytest.raises(JudgeUnavailableError, match="there is no such file"):
        load_judges(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(JudgeUnavailableError, match="not an ONNX network"):
        load_judges(tmp_path / "broken.onnx")


def test_whisper_features_have_the_shape_that_smart_turn_wants() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(8 * ENGINE_INPUT_HZ) / ENGINE_INPUT_HZ)
    mel = end_of_turn._whisper_mel(tone.astype(np.float32))
    assert mel.shape == (80, 800)
    loudest = int(mel.mean(axis=1).argmax())
    edges = end_of_turn._slaney_filters().argmax(axis=0) * 40.0
    assert abs(edges[loudest] - 1000) < 60
