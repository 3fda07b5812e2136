"""Recordings and films from outside, and what they must not be able to do."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest
from daemon_rig import tone
from test_chat import film

from daemon.audio_files import whole_file
from daemon.images import decode_base64
from daemon.media_files import decode_audio, decode_video
from pipeline.errors import BadInputError

PCM = np.frombuffer(tone(1.0), "<i2")
FILM = base64.b64decode(film(has_sound=True).partition(",")[2])


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus", "aac"])
def test_a_recording_keeps_its_length_and_its_pitch(form: str) -> None:
    pcm = decode_audio(whole_file(form, PCM), max_s=5, param="p")  # type: ignore[arg-type]
    assert len(pcm) == pytest.approx(16_000, abs=1_600)
    pitch_hz = float(np.abs(np.fft.rfft(pcm)).argmax()) * 16_000 / len(pcm)
    assert pitch_hz == pytest.approx(300, abs=3)


def wav_of_rate(rate_hz: int, num_samples: int) -> bytes:
    data = bytearray(whole_file("wav", np.zeros(num_samples, np.int16)))
    data[24:32] = struct.pack("<II", rate_hz, 2 * rate_hz)
    return bytes(data)


def test_a_few_bytes_are_no_hours() -> None:
    with pytest.raises(BadInputError, match="Longer than 5 seconds"):
        decode_audio(whole_file("wav", np.tile(PCM, 6)), max_s=5, param="p")
    with pytest.raises(BadInputError, match="Longer than 60 seconds"):
        decode_audio(wav_of_rate(1, 100_000), max_s=60, param="p")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense" * 100,
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        whole_file("flac", PCM)[:60],
        whole_file("wav", PCM[:0]),
    ],
)
def test_what_is_no_recording(data: bytes) -> None:
    with pytest.raises(BadInputError) as caught:
        decode_audio(data, max_s=5, param="p")
    assert caught.value.param == "p"


def test_limits_of_a_film() -> None:
    limits = {"max_s": 5.0, "max_pixels": 10_000, "side": 32}
    part = decode_video(FILM, **limits, param="p")  # type: ignore[arg-type]
    assert [frame.rgb.shape for frame in part.frames] == [(24, 32, 3)] * 2
    for changed in ({"max_s": 0.3}, {"max_pixels": 64 * 48 - 1}):
        with pytest.raises(BadInputError):
            decode_video(FILM, **(limits | changed), param="p")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="no pictures"):
        decode_video(whole_file("mp3", PCM), **limits, param="p")  # type: ignore[arg-type]


def test_base64_in_pieces_is_as_strict_as_in_one() -> None:
    data = np.random.default_rng(0).bytes(200_001)
    text = base64.b64encode(data).decode()
    assert decode_base64(text, max_bytes=len(data), param="p") == data
    two = base64.b64encode(data[:49_151]).decode() + text  # padding where a piece ends
    for wrong in (two, text[:-1], text[:70_000] + "!" + text[70_001:], "é" * 8):
        with pytest.raises(BadInputError):
            decode_base64(wrong, max_bytes=1 << 20, param="p")
