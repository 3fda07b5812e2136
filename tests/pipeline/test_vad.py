"""Voice detectors on synthetic speech.

And the whole way from samples to turns with the real one.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine
from fake_session import FakeClock, settle

from pipeline import events
from pipeline.conversation import Conversation
from pipeline.messages import Pcm
from pipeline.resample import resample
from pipeline.session_config import SessionConfig, TurnDetection
from pipeline.turns import SpeechStart, SpeechStop, TurnMachine
from pipeline.vad import EnergyVad, SileroVad, Vad

SECOND = 16_000


def speech(fixtures: Path, name: str) -> Pcm:
    with wave.open(str(fixtures / f"{name}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SECOND, 1, 2)
        raw = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return (raw / 32768).astype(np.float32)


def probabilities(vad: Vad, pcm: Pcm) -> list[float]:
    windows = len(pcm) // vad.window_samples
    return [vad.probability(window) for window in np.split(pcm[: windows * 512], windows)]


def edges(vad: Vad, pcm: Pcm, settings: TurnDetection) -> list[SpeechStart | SpeechStop]:
    machine = TurnMachine(settings)
    found = []
    for index, probability in enumerate(probabilities(vad, pcm)):
        edge = machine.feed(probability, start_sample=index * 512, end_sample=index * 512 + 512)
        found += [edge] if edge else []
    return found


@pytest.mark.parametrize("name", ["hello_how_are_you", "what_colour_is_this"])
@pytest.mark.parametrize("make", [SileroVad, EnergyVad])
def test_one_sentence_is_one_turn(fixtures: Path, name: str, make: type) -> None:
    said = speech(fixtures, name)
    pcm = np.concatenate([np.zeros(SECOND, np.float32), said, np.zeros(SECOND, np.float32)])
    found = edges(make(), pcm, TurnDetection(silence_duration_ms=400))
    assert [type(edge) for edge in found] == [SpeechStart, SpeechStop]
    # 300 ms of padding before the first sound; synthetic silence around the words inside the file
    assert SECOND * 0.6 < found[0].at_sample < SECOND * 1.2
    assert isinstance(found[1], SpeechStop)
    assert abs(found[1].speech_end_sample - (SECOND + len(said))) < 0.4 * SECOND
    silence = found[1].at_sample - found[1].speech_end_sample
    assert 0.4 * SECOND <= silence < 0.4 * SECOND + 512


def test_counting_with_pauses_is_one_turn_at_a_patient_setting(fixtures: Path) -> None:
    silence = np.zeros(SECOND, np.float32)
    pcm = np.concatenate([silence, speech(fixtures, "count_to_five"), silence])
    found = edges(SileroVad(), pcm, TurnDetection(silence_duration_ms=700))
    assert [type(edge) for edge in found] == [SpeechStart, SpeechStop]


async def test_a_conversation_hears_one_turn_at_24_khz(fixtures: Path) -> None:
    said = speech(fixtures, "hello_how_are_you")
    silence = np.zeros(SECOND, np.float32)
    pcm = resample(np.concatenate([silence, said, silence]), in_hz=16_000, out_hz=24_000)
    log: list[events.SessionEvent] = []
    conversation = Conversation(
        FakeEngine(),
        config=SessionConfig(
            instructions="", turn_detection=TurnDetection(silence_duration_ms=400)
        ),
        emit=log.append,
        vad=SileroVad(),
        clock=FakeClock(),
    )
    running = asyncio.create_task(conversation.run())
    for start in range(0, len(pcm), 480):
        await conversation.append_audio(pcm[start : start + 480], rate_hz=24_000)
    await settle()
    await conversation.aclose()
    await running
    starts = [event for event in log if isinstance(event, events.SpeechStarted)]
    stops = [event for event in log if isinstance(event, events.SpeechStopped)]
    assert (len(starts), len(stops)) == (1, 1)
    assert 600 < starts[0].audio_start_ms < 1200
    assert any(isinstance(event, events.ResponseFinished) for event in log)


def test_noise_and_silence_are_no_speech() -> None:
    rng = np.random.default_rng(1)
    vad = SileroVad()
    assert max(probabilities(vad, np.zeros(2 * SECOND, np.float32))) < 0.3
    noise = rng.normal(0, 0.05, 2 * SECOND).astype(np.float32)
    assert np.mean(np.array(probabilities(vad, noise)) > 0.5) < 0.05


def test_sessions_do_not_hear_each_other(fixtures: Path) -> None:
    said = speech(fixtures, "hello_how_are_you")
    alone = probabilities(SileroVad(), said)
    ours, other = SileroVad(), SileroVad()
    mixed = []
    for index in range(len(alone)):
        mixed.append(ours.probability(said[index * 512 : index * 512 + 512]))
        other.probability(np.full(512, 0.3, np.float32))
    assert mixed == alone
    ours.reset()
    assert probabilities(ours, said) == alone


def test_the_package_is_never_imported() -> None:
    code = (
        "import sys; from pipeline.vad import SileroVad; SileroVad();"
        "assert not {'torch', 'silero_vad'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import vad

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(vad.VadUnavailableError, match="pip install silero-vad"):
        vad.silero_model_path()
