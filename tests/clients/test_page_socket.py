"""The page over WebSocket in a real Chromium: where UDP is blocked, and where WebRTC is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

ASKED = "/?transport=websocket"
CONNECTED = "() => omnid.transport === 'websocket' && omnid.state !== 'connecting'"
QUIET = "() => document.getElementById('reply-meter').getAttribute('aria-valuenow') === '0'"
MOMENTS = """kind => omnid.events.filter(e => e.event.type === kind).map(e => e.at_ms)"""


def count(kind: str, number: int) -> str:
    return f"() => omnid.events.filter(e => e.event.type === {kind!r}).length >= {number}"


async def connect(page: Any, url: str) -> None:
    await page.goto(url)
    await page.wait_for_function("() => !document.getElementById('connect').disabled")
    await page.click("#connect")
    await page.wait_for_function(CONNECTED, timeout=20_000)


def sent(fake_server: Any, kind: str) -> list[dict[str, Any]]:
    return [event for event in fake_server.seen.events if event["type"] == kind]


async def test_goes_by_websocket_where_udp_is_blocked(
    browse: Callable[..., Any],
    fake_server: Any,
    microphone_wav: Callable[..., Path],
    tmp_path: Path,
) -> None:
    fake_server.script.is_udp_blocked = True
    microphone = microphone_wav(("speech_count", "speech_colour"), (9.0, 3.0))
    async with browse(microphone) as page:
        await connect(page, fake_server.url)
        assert (fake_server.seen.num_calls, fake_server.seen.num_sockets) == (1, 1)
        assert fake_server.seen.hangups == 1, "the call that came to nothing keeps no place"
        await page.click("#camera")
        await page.wait_for_function(count("output_audio_buffer.stopped", 2), timeout=30_000)
        assert await page.inner_text("#transport") == "WebSocket"
        assert await page.evaluate("omnid.replyPeakDb") > -40
        assert await page.locator(".turn.assistant").all_inner_texts() == ["one two three"] * 2
        assert await page.locator(".turn.user").count() == 2
        assert 750 < await page.evaluate("omnid.lastLatencyMs") < 2_000  # 700 of them by the server
        assert "encoder 3" in await page.inner_text("#stages")
        assert await page.evaluate("omnid.state") == "listening"
        assert await page.is_hidden("#error")
        assert page.problems == []
        await page.screenshot(path=tmp_path / "page.png")
    assert {0, 1, 2} == {int(np.argmax(colour)) for colour in fake_server.seen.colours}
    assert sent(fake_server, "conversation.item.truncate") == [], "both replies were heard whole"
    heard = np.concatenate(fake_server.seen.pcm)
    assert np.abs(heard).max() > 3000


async def test_an_interruption_silences(
    browse: Callable[..., Any], fake_server: Any, microphone_wav: Callable[..., Path]
) -> None:
    fake_server.script.reply_s = 16.0
    microphone = microphone_wav(("speech_count", "speech_colour"), (2.0, 4.0))
    async with browse(microphone) as page:
        await connect(page, fake_server.url + ASKED)
        await page.wait_for_function(count("output_audio_buffer.cleared", 1), timeout=20_000)
        await page.wait_for_function(QUIET, timeout=400)
        assert await page.evaluate("omnid.state") == "hearing"
        (started,) = await page.evaluate(MOMENTS, "output_audio_buffer.started")
        (cleared,) = await page.evaluate(MOMENTS, "output_audio_buffer.cleared")
        (interrupted,) = (await page.evaluate(MOMENTS, "input_audio_buffer.speech_started"))[1:]
        assert cleared - interrupted < 50
        await page.wait_for_function(count("conversation.item.truncated", 1))
        assert "interrupted" in await page.locator(".turn.assistant").first.inner_text()
        # the second reply is heard: nothing of the first one comes after it fell silent
        await page.wait_for_function(count("output_audio_buffer.started", 2), timeout=20_000)
        assert page.problems == []
    (truncated,) = sent(fake_server, "conversation.item.truncate")
    assert truncated["audio_end_ms"] == pytest.approx(cleared - started, abs=300)


async def test_a_reply_that_is_in_doubt_is_silent_and_goes_on_where_it_was(
    browse: Callable[..., Any], fake_server: Any
) -> None:
    fake_server.script.reply_s = 4.0
    fake_server.script.doubts = ((0.5, "duck"), (0.1, "hold"), (0.8, "resume"))
    async with browse() as page:
        await connect(page, fake_server.url + ASKED)
        await page.click("#microphone")  # the fake device beeps
        await page.fill("#text", "hello there")
        await page.keyboard.press("Enter")
        await page.wait_for_function("() => omnid.replyPeakDb > -40")
        await page.wait_for_function(QUIET, timeout=3_000)
        assert await page.evaluate("omnid.state") == "speaking"
        await page.wait_for_function(f"() => !({QUIET})()", timeout=3_000)
        await page.wait_for_function(count("output_audio_buffer.stopped", 1), timeout=10_000)
        (started,) = await page.evaluate(MOMENTS, "output_audio_buffer.started")
        (stopped,) = await page.evaluate(MOMENTS, "output_audio_buffer.stopped")
        assert stopped - started == pytest.approx(4_000 + 800, abs=250)
        assert page.problems == []
    assert sent(fake_server, "conversation.item.truncate") == [], "it was heard whole"


async def test_works_without_webrtc(browse: Callable[..., Any], fake_server: Any) -> None:
    """Typing, the stop key and push to talk."""
    fake_server.script.reply_s = 8.0
    async with browse() as page:
        await page.add_init_script("delete window.RTCPeerConnection")
        await connect(page, fake_server.url)
        await page.click("#microphone")  # the fake device beeps
        await page.fill("#text", "hello there")
        await page.keyboard.press("Enter")
        await page.wait_for_function("() => omnid.state === 'speaking' && omnid.replyPeakDb > -40")
        await page.keyboard.press("Escape")
        await page.wait_for_function("() => omnid.state === 'listening'")
        await page.wait_for_function(QUIET, timeout=1_000)
        assert "interrupted" in await page.inner_text(".turn.assistant")
        await page.click("#microphone")
        await page.click("#manual")
        await page.click("#status")
        await page.keyboard.down("Space")
        await page.wait_for_timeout(600)
        await page.keyboard.up("Space")
        await page.wait_for_function(count("output_audio_buffer.started", 2))
        assert page.problems == []
    assert fake_server.seen.num_calls == 0
    kinds = [k for k in fake_server.seen.types() if k != "input_audio_buffer.append"]
    assert kinds[-3:] == [
        "input_audio_buffer.clear",
        "input_audio_buffer.commit",
        "response.create",
    ]
    assert len(sent(fake_server, "conversation.item.truncate")) == 1
    assert "output_audio_buffer.clear" not in kinds, "belongs to calls"


async def test_camera_off_is_forgotten(browse: Callable[..., Any], fake_server: Any) -> None:
    async with browse() as page:
        await connect(page, fake_server.url + ASKED)
        await page.click("#microphone")
        await page.wait_for_function("() => omnid.state === 'listening'")
        await page.click("#camera")
        await page.wait_for_timeout(2_500)
        assert 3 <= len(sent(fake_server, "input_image_buffer.append")) <= 6
        await page.click("#camera")
        await page.wait_for_timeout(300)
        num_sent = len(sent(fake_server, "input_image_buffer.append"))
        assert len(sent(fake_server, "input_audio_buffer.clear")) == 1
        await page.wait_for_timeout(1_000)
        assert len(sent(fake_server, "input_image_buffer.append")) == num_sent


async def test_returns_after_the_server_was_gone(
    browse: Callable[..., Any], fake_server: Any
) -> None:
    async with browse() as page:
        await connect(page, fake_server.url + ASKED)
        await page.click("#microphone")
        await page.fill("#text", "remember me")
        await page.keyboard.press("Enter")
        await page.wait_for_function(count("output_audio_buffer.stopped", 1))
        fake_server.stop()
        await page.wait_for_function("() => omnid.state === 'reconnecting'", timeout=15_000)
        assert await page.is_hidden("#transport")
        fake_server.seen.events.clear()
        fake_server.start()
        await page.wait_for_function(CONNECTED, timeout=20_000)
        await page.wait_for_timeout(300)
    created = [event["item"] for event in sent(fake_server, "conversation.item.create")]
    assert [item["content"][0]["text"] for item in created] == ["remember me", "one two three"]


async def test_asks_for_a_key(browse: Callable[..., Any], fake_server: Any) -> None:
    fake_server.script.key = "sesame"
    async with browse() as page:
        await page.goto(fake_server.url + ASKED)
        await page.wait_for_function("() => !document.getElementById('connect').disabled")
        await page.click("#connect")
        await page.fill("#key", "ses ame")
        await page.keyboard.press("Enter")
        await page.wait_for_function(
            "() => document.getElementById('error').textContent.includes('such characters')"
        )
        await page.evaluate("sessionStorage.removeItem('key')")
        await page.click("#connect")
        await page.fill("#key", "sesame")
        await page.keyboard.press("Enter")
        await page.wait_for_function(CONNECTED)


CAPTURE = """async ([hz, toneHz]) => {
  const context = new OfflineAudioContext(1, hz, hz);
  await context.audioWorklet.addModule("capture_worklet.js");
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 1 });
  const heard = [];
  node.port.onmessage = ({ data }) => heard.push(...new Int16Array(data));
  const tone = new OscillatorNode(context, { frequency: toneHz });
  tone.connect(node);
  node.connect(context.destination);
  tone.start();
  await context.startRendering();
  await new Promise((resolve) => setTimeout(resolve, 200));
  return heard;
}"""


@pytest.mark.parametrize(
    ("rate_hz", "tone_hz", "is_kept"),
    [(48_000, 1_000, True), (44_100, 5_000, True), (16_000, 3_000, True), (48_000, 14_000, False)],
)
async def test_the_microphone_is_resampled_cleanly(
    browse: Callable[..., Any], fake_server: Any, rate_hz: int, tone_hz: int, is_kept: bool
) -> None:
    """A tone stays a tone, and one that 24 kHz can not hold is not folded into what it can."""
    async with browse() as page:
        await page.goto(fake_server.url)
        heard = np.array(await page.evaluate(CAPTURE, [rate_hz, tone_hz]))[1_000:] / 32767
    assert 21_000 < len(heard) <= 23_040
    if not is_kept:
        assert np.sqrt((heard**2).mean()) < 0.003
        return
    phase = 2 * np.pi * tone_hz * np.arange(len(heard)) / 24_000
    basis = np.stack([np.sin(phase), np.cos(phase)], 1)
    weights, *_ = np.linalg.lstsq(basis, heard, rcond=None)
    assert np.hypot(*weights) == pytest.approx(1.0, abs=0.05)
    assert np.sqrt(((heard - basis @ weights) ** 2).mean()) < 0.01


PLAYBACK = """async (cuts) => {
  const context = new OfflineAudioContext(1, 24_000, 24_000);
  await context.audioWorklet.addModule("playback_worklet.js");
  const options = { numberOfInputs: 0, outputChannelCount: [1] };
  const node = new AudioWorkletNode(context, "playback", options);
  node.connect(context.destination);
  const told = [];
  node.port.onmessage = ({ data }) => told.push(data);
  let at = 0;
  for (const length of cuts) {
    const tone = (_, index) => 0.5 * Math.sin((2 * Math.PI * 440 * (at + index)) / 24_000);
    const samples = Float32Array.from({ length }, tone);
    node.port.postMessage({ id: "item", samples });
    at += length;
  }
  node.port.postMessage("end");
  await new Promise((resolve) => setTimeout(resolve, 200));
  const rendered = await context.startRendering();
  await new Promise((resolve) => setTimeout(resolve, 200));
  return { played: [...rendered.getChannelData(0)], told };
}"""


async def test_playback_has_no_clicks(browse: Callable[..., Any], fake_server: Any) -> None:
    """However it is cut, the sound is one piece; it begins and ends without a step."""
    cuts = [1_920, 1, 777, 4_800, 2_002]
    async with browse() as page:
        await page.goto(fake_server.url)
        result = await page.evaluate(PLAYBACK, cuts)
    played = np.array(result["played"])
    assert np.abs(played).max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.diff(played)).max() < 0.5 * 2 * np.pi * 440 / 24_000 * 1.1
    assert np.abs(played[12_000:]).max() < 1e-3
    kinds = [message["type"] for message in result["told"]]
    assert (kinds[0], kinds[-1]) == ("started", "stopped")
    assert sum(m["numSamples"] for m in result["told"] if m["type"] == "played") == sum(cuts)
