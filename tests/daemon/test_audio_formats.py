"""Audio formats, both ways: exact tables, streams without seams, turns over WebSocket."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from daemon_rig import serving, silence, tone
from fake_engine import Script
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bad_input import audio, event, next_event, talking

from daemon.audio_formats import SpeechEncoder, bytes_of, samples_of, speech_base64
from daemon.protocol import AudioFormatView
from pipeline.messages import Pcm16

FORMATS = {
    "pcm8": AudioFormatView(rate=8_000),
    "pcm16": AudioFormatView(rate=16_000),
    "pcm24": AudioFormatView(),
    "pcm48": AudioFormatView(rate=48_000),
    "pcmu": AudioFormatView(type="audio/pcmu", rate=None),
    "pcma": AudioFormatView(type="audio/pcma", rate=None),
}
NAMES = sorted(FORMATS)
REPLY_S = 8 * 0.08


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("pcmu", {0xFF: 0, 0x00: -32124, 0x80: 32124, 0xF0: 120}),
        ("pcma", {0xD5: 8, 0x55: -8, 0x2A: -32256, 0xAA: 32256}),
    ],
)
def test_g711_is_that_of_the_standard(name: str, codes: dict[int, int]) -> None:
    decoded = samples_of(bytes(codes), FORMATS[name]) * 32768
    assert dict(zip(codes, decoded.tolist(), strict=True)) == codes


@pytest.mark.parametrize("name", ["pcmu", "pcma"])
def test_g711_there_and_back(name: str) -> None:
    every = bytes(range(256))
    pcm = (samples_of(every, FORMATS[name]) * 32768).astype(np.int16)
    back = (samples_of(bytes_of(pcm, FORMATS[name]), FORMATS[name]) * 32768).astype(np.int16)
    np.testing.assert_array_equal(back, pcm)
    rng = np.random.default_rng(0)
    loud = rng.integers(-32_000, 32_000, 4_000).astype(np.int16)
    off = samples_of(bytes_of(loud, FORMATS[name]), FORMATS[name]) * 32768 - loud
    assert (np.abs(off) <= np.maximum(16, np.abs(loud) / 16)).all(), "half a step of its segment"


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.integers(0, 24_000), max_size=6), st.integers(0, 9))
def test_a_stream_has_no_seams_and_does_not_drift(name: str, cuts: list[int], seed: int) -> None:
    pcm = np.random.default_rng(seed).integers(-9_000, 9_000, 24_000).astype(np.int16)
    whole = streamed(pcm, name, [])
    assert streamed(pcm, name, sorted(cuts)) == whole
    assert whole == base64.b64decode(speech_base64_of(pcm, name))
    num_samples = len(whole) // FORMATS[name].sample_bytes
    assert abs(num_samples - FORMATS[name].rate_hz) <= FORMATS[name].rate_hz // 500, "a second"


def streamed(pcm: Pcm16, name: str, cuts: list[int]) -> bytes:
    encoder = SpeechEncoder(FORMATS[name])
    pieces = [piece for part in np.split(pcm, cuts) for piece in encoder.push(part)]
    return b"".join(map(base64.b64decode, [*pieces, *encoder.flush()]))


def speech_base64_of(pcm: Pcm16, name: str) -> str:
    whole = speech_base64(
        pcm.astype(np.float32) / 32768, FORMATS[name], from_hz=24_000, max_chars=1 << 20
    )
    assert whole is not None
    return whole


def wire_format(name: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(FORMATS[name].model_dump_json())
    return shown


def spoken(name: str) -> bytes:
    """Half a second of speech and the silence behind it, as the format has it."""
    rate_hz = FORMATS[name].rate_hz
    pcm = np.frombuffer(
        silence(0.4, rate_hz) + tone(0.5, rate_hz) + silence(0.9, rate_hz), np.int16
    )
    return bytes_of(pcm, FORMATS[name])


@pytest.mark.parametrize("name", NAMES)
async def test_a_turn_in_and_out(name: str) -> None:
    """The input clock, what the engine hears, and the length of the reply are those of the format;
    what is retrieved is in the format, too (section 8, checklist 19).
    """
    other = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
    async with serving() as rig, talking(rig) as socket:
        await socket.send(
            audio(input={"format": wire_format(name)}, output={"format": wire_format(other)})
        )
        view = (await next_event(socket))["session"]["audio"]
        assert view["input"]["format"] == wire_format(name)
        assert view["output"]["format"] == wire_format(other)
        data = spoken(name)
        for start in range(0, len(data), 4_801):
            piece = base64.b64encode(data[start : start + 4_801]).decode()
            await socket.send(event("input_audio_buffer.append", audio=piece))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != "response.done":
            seen.append(await next_event(socket))
        by_type = {each["type"]: each for each in seen}
        started_ms = by_type["input_audio_buffer.speech_started"]["audio_start_ms"]
        assert abs(started_ms - 100) < 100
        done = by_type["response.done"]["response"]
        assert done["audio"]["output"]["format"] == wire_format(other)
        deltas = [each["delta"] for each in seen if each["type"].endswith("output_audio.delta")]
        num_bytes = sum(len(base64.b64decode(delta)) for delta in deltas)
        assert seconds_of(num_bytes, other) == pytest.approx(REPLY_S, abs=0.003)
        for item_id, kind, seconds in (
            (by_type["input_audio_buffer.committed"]["item_id"], name, None),
            (done["output"][0]["id"], other, REPLY_S),
        ):
            await socket.send(event("conversation.item.retrieve", item_id=item_id))
            while (answer := await next_event(socket))["type"] != "conversation.item.retrieved":
                pass
            sound = base64.b64decode(answer["item"]["content"][0]["audio"])
            if seconds is None:
                pcm = samples_of(sound, FORMATS[kind])
                assert np.abs(pcm).max() == pytest.approx(12_000 / 32_768, rel=0.1)
            else:
                assert seconds_of(len(sound), kind) == pytest.approx(seconds, abs=0.003)


def seconds_of(num_bytes: int, name: str) -> float:
    return num_bytes / FORMATS[name].sample_bytes / FORMATS[name].rate_hz


async def test_a_format_changes_between_turns_only() -> None:
    async with serving(Script(holds_at=2)) as rig, talking(rig) as socket:
        await socket.send(audio(input={"turn_detection": None}))
        await next_event(socket)
        sound = base64.b64encode(tone(0.3)).decode()
        await socket.send(event("input_audio_buffer.append", audio=sound))
        await socket.send(audio(input={"format": wire_format("pcmu")}))
        answer = await next_event(socket)
        assert answer["error"]["param"] == "session.audio.input.format"
        await socket.send(audio(input={"format": wire_format("pcm24")}))
        assert (await next_event(socket))["type"] == "session.updated", "nothing changes"
        await socket.send(event("input_audio_buffer.clear"))
        assert (await next_event(socket))["type"] == "input_audio_buffer.cleared"
        await socket.send(audio(input={"format": wire_format("pcmu")}))
        assert (await next_event(socket))["type"] == "session.updated"
        await socket.send(event("response.create"))
        while (await next_event(socket))["type"] != "response.output_audio.delta":
            pass
        await socket.send(audio(output={"format": wire_format("pcma")}))
        while (answer := await next_event(socket))["type"] != "error":
            pass
        assert answer["error"]["param"] == "session.audio.output.format"


async def test_a_reply_in_a_format_and_at_a_speed_of_its_own() -> None:
    async with serving() as rig, talking(rig) as socket:
        await socket.send(audio(output={"speed": 0.5}))
        assert (await next_event(socket))["session"]["audio"]["output"]["speed"] == 0.5
        output = {"output": {"format": wire_format("pcmu")}}
        await socket.send(event("response.create", response={"audio": output}))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != "response.done":
            seen.append(await next_event(socket))
        assert seen[0]["response"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}
        deltas = [each["delta"] for each in seen if each["type"].endswith("output_audio.delta")]
        num_bytes = sum(len(base64.b64decode(delta)) for delta in deltas)
        assert seconds_of(num_bytes, "pcmu") == pytest.approx(2 * REPLY_S, abs=0.003)
