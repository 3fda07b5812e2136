"""WAV files and pictures as the benchmark reads them."""

from __future__ import annotations

import base64
import wave
from pathlib import Path

import numpy as np
import pytest

from clients.bench.camera import read_frames, to_jpeg_base64
from clients.bench.errors import BenchError
from clients.bench.speech import default_wav, read_speech


def write_wav(path: Path, pcm: np.ndarray, rate_hz: int, num_channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as target:
        target.setnchannels(num_channels)
        target.setsampwidth(pcm.dtype.itemsize)
        target.setframerate(rate_hz)
        target.writeframes(pcm.tobytes())
    return path


def test_stereo_of_any_rate(tmp_path: Path) -> None:
    left = np.zeros(44_100, np.int16)
    left[:22_050] = (12_000 * np.sin(np.arange(22_050) * 2 * np.pi * 440 / 44_100)).astype(np.int16)
    stereo = np.stack([left, left], axis=1)
    speech = read_speech(write_wav(tmp_path / "a.wav", stereo, 44_100, 2), 24_000)
    assert len(speech.pcm) == pytest.approx(24_000, abs=50)
    assert speech.end == pytest.approx(12_000, abs=50)
    assert np.abs(speech.pcm[2_000:10_000]).max() == pytest.approx(12_000, rel=0.02)


def test_default_is_speech() -> None:
    speech = read_speech(default_wav(), 48_000)
    assert 1.5 < speech.end / 48_000 < 3
    assert default_wav().stat().st_size < 100_000


@pytest.mark.parametrize(
    ("pcm", "words"),
    [
        (np.zeros(16_000, np.int16), "silence"),
        (np.zeros(100, np.uint8), "8 bits"),
        (np.zeros(0, np.int16), "silence"),
    ],
)
def test_useless_files_are_named(tmp_path: Path, pcm: np.ndarray, words: str) -> None:
    path = write_wav(tmp_path / "bad.wav", pcm, 16_000)
    with pytest.raises(BenchError, match=words) as error:
        read_speech(path, 24_000)
    assert str(path) in str(error.value)


def test_not_a_wav(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("hello")
    for path in (tmp_path / "x.wav", tmp_path / "absent.wav"):
        with pytest.raises(BenchError, match="not a WAV"):
            read_speech(path, 24_000)
        with pytest.raises(BenchError, match="not a picture"):
            read_frames(path)


def test_video_is_thinned_and_shrunk(camera_y4m: Path) -> None:
    frames = read_frames(camera_y4m)
    assert len(frames) == 15  # three seconds, five a second
    assert (frames[0].width, frames[0].height) == (320, 240)
    jpeg = base64.b64decode(to_jpeg_base64(frames[0]))
    assert jpeg[:2] == b"\xff\xd8"
