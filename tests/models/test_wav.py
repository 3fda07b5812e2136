"""WAV files of the offline commands: what is read, what is refused, what is written."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from models.errors import RequestError
from models.wav import read_wav, resample, write_wav


def wav(path: Path, *, width: int = 2, channels: int = 1, rate_hz: int = 16_000) -> Path:
    """A tone of 440 Hz, half a second, at a quarter of full scale, in every channel."""
    tone = 0.25 * np.sin(2 * np.pi * 440 * np.arange(rate_hz // 2) / rate_hz)
    full = np.round(tone * (2 ** (8 * width - 1) - 1)).astype("<i4")
    if width == 1:
        full += 128
    data = full.view(np.uint8).reshape(-1, 4)[:, :width].repeat(channels, 0)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(data.tobytes())
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_any_pcm_is_read_as_16_khz_mono(
    tmp_path: Path, width: int, channels: int, rate_hz: int
) -> None:
    path = wav(tmp_path / "a.wav", width=width, channels=channels, rate_hz=rate_hz)
    pcm = read_wav(path)
    assert pcm.dtype == np.float32
    assert len(pcm) == 8_000
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000)
    np.testing.assert_allclose(pcm[500:-500], expected[500:-500], atol=0.01)


def test_what_lies_beyond_the_new_rate_is_filtered_out() -> None:
    tone = np.sin(2 * np.pi * 11_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(tone, 48_000, 16_000)[200:-200]).max() < 0.01


def with_field(path: Path, offset: int, form: str, value: int) -> None:
    data = bytearray(wav(path).read_bytes())
    struct.pack_into(form, data, offset, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "form", "value", "why"),
    [
        (22, "<H", 0, "channels"),
        (24, "<I", 0, "no samples"),
        (34, "<H", 0, "sample width"),
        (34, "<H", 64, "64 bits"),
        (40, "<I", 0, "no samples"),
        (20, "<H", 3, "unknown format"),
    ],
)
def test_damaged_headers_are_refused(
    tmp_path: Path, offset: int, form: str, value: int, why: str
) -> None:
    path = tmp_path / "a.wav"
    with_field(path, offset, form, value)
    with pytest.raises(RequestError, match=why):
        read_wav(path)


def test_no_wav_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(RequestError, match="there is no file"):
        read_wav(path)
    path.write_bytes(b"")
    with pytest.raises(RequestError, match="ends too early"):
        read_wav(path)
    with pytest.raises(RequestError, match="not a PCM WAV file"):
        read_wav(tmp_path)


def test_a_file_cut_in_a_sample_is_read_up_to_there(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", channels=2)
    path.write_bytes(path.read_bytes()[:1001])
    assert len(read_wav(path)) == (1001 - 44) // 4


def test_written_speech_is_read_back(tmp_path: Path) -> None:
    pcm = np.array([0, 1, -32768, 32767], np.int16)
    write_wav(tmp_path / "a.wav", pcm, 16_000)
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav") * 32768, pcm)


def test_a_place_that_can_not_be_written_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="can not write"):
        write_wav(tmp_path / "none" / "a.wav", np.zeros(1, np.int16), 24_000)
