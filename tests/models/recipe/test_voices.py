"""Synthesised speech and what becomes of it on the way."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from models.errors import CheckpointError
from models.recipe import acoustics, voices
from models.recipe.dialogues import Said
from models.recipe.sound import read_wav, resampled, trimmed, write_wav
from models.recipe.speakers import spoken
from models.recipe.voices import UNSEEN, Voice, random_voice, say

RATE_HZ = 16_000


def tone(hz: float = 440.0, seconds: float = 1.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz).astype("f4")


def test_wav_round_trip(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(), RATE_HZ)
    pcm, rate_hz = read_wav(tmp_path / "a.wav")
    assert rate_hz == RATE_HZ
    assert np.abs(pcm - tone()).max() < 1e-4


def test_resampling_keeps_the_tone() -> None:
    assert np.abs(resampled(tone(), RATE_HZ, 24_000) - tone(rate_hz=24_000)).max() < 1e-3


def test_trimming_leaves_the_margin() -> None:
    padded = np.pad(tone(), 8000)
    assert abs(len(trimmed(padded, RATE_HZ)) - len(tone()) - 640) < 20
    assert len(trimmed(np.zeros(100, dtype=np.float32), RATE_HZ)) == 100


def test_no_unseen_synthesizer_in_training() -> None:
    chance = random.Random(0)
    seen = {random_voice(chance).program for _ in range(200)}
    assert {"flite", "espeak-ng"} <= seen <= {"flite", "espeak-ng", "pico2wave", "RHVoice-test"}
    assert not seen & {voice.program for voice in UNSEEN}


@pytest.mark.parametrize("num_slow", [1, 2])
def test_a_synthesizer_that_hangs_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_slow: int
) -> None:
    """As after a sleep of the machine; a second time it is an error, with the command in it."""
    script, count = tmp_path / "flite", tmp_path / "count"
    script.write_text(
        f"#!/bin/sh\necho >> {count}\n[ $(wc -l < {count}) -gt {num_slow} ] || exec sleep 20\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(voices, "TIMEOUT_S", 0.3)
    if num_slow == 1:
        voices._call([str(script)])
    else:
        with pytest.raises(CheckpointError, match=r"flite.*timed out"):
            voices._call([str(script)])
    assert len(count.read_text().splitlines()) == 2


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_noise_is_so_loud(snr_db: float) -> None:
    noise = acoustics.noisy(tone(), random.Random(0), snr_db) - tone()
    measured = 10 * np.log10(np.mean(tone() ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.3)


@pytest.mark.parametrize("change", [acoustics.telephoned, acoustics.compressed])
def test_codecs_change_a_tone_a_little(change: object) -> None:
    changed = change(tone())  # type: ignore[operator]
    error = np.mean((changed - tone())[800:-800] ** 2) / np.mean(tone() ** 2)
    assert 1e-7 < error < 0.05


def test_a_telephone_has_no_treble() -> None:
    assert np.abs(acoustics.telephoned(tone(6000.0))).max() < 0.02


def test_recording_is_reproducible_and_at_its_level() -> None:
    hard = acoustics.Conditions(noise=1, room=1, clipping=1, codec=1)
    first = acoustics.recorded(tone(), random.Random(5), hard)
    assert np.array_equal(first, acoustics.recorded(tone(), random.Random(5), hard))
    clean = acoustics.recorded(tone(), random.Random(5), acoustics.CLEAN)
    level_db = 10 * np.log10(np.mean(clean**2))
    assert -26.5 < level_db < -19.5
    assert len(clean) > len(tone())


def test_noise_needs_no_synthesizer(tmp_path: Path) -> None:
    said = Said(text="", sound="noise")
    pcm = spoken(
        said, Voice(program="flite", name="rms"), random.Random(1), acoustics.CLEAN, tmp_path
    )
    assert len(pcm) >= RATE_HZ // 2
    assert pcm.dtype == np.float32


@pytest.mark.parametrize("name", ["pico2wave", "RHVoice-test"])
def test_others_speak_where_they_are_installed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / name
    program.write_text("")
    program.chmod(0o755)
    for path, is_there in ((str(tmp_path), True), ("", False)):
        monkeypatch.setenv("PATH", path)
        drawn = {random_voice(random.Random(seed)).program for seed in range(100)}
        assert drawn == {"flite", "espeak-ng"} | ({name} if is_there else set())


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert voices.missing_programs() == ["flite", "espeak-ng"]
    with pytest.raises(CheckpointError, match="flite is not installed"):
        say("hello", Voice(program="flite", name="rms"), tmp_path)


@pytest.mark.skipif(bool(voices.missing_programs()), reason="flite or espeak-ng is not installed")
@pytest.mark.parametrize("voice", [random_voice(random.Random(seed)) for seed in (1, 3)])
def test_a_sentence_is_made_once(
    voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pcm = say("what colour is this", voice, tmp_path)
    assert 0.5 * RATE_HZ < len(pcm) < 4 * RATE_HZ
    monkeypatch.setenv("PATH", "")
    assert np.abs(say("what colour is this", voice, tmp_path) - pcm).max() < 1e-4
