"""The page in a real Chromium against the real daemon and its small model: one spoken conversation.

Chromium's microphone is a WAV file with two utterances, its camera a video of three colours. What
the server heard is fetched back from it and compared with the file.
"""

from __future__ import annotations

import base64
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

AUDIBLE_DB = -45
BLOCK_MS = 20
OVER = "e => /output_audio_buffer.(stopped|cleared)/.test(e.event.type)"
COMMITTED = "e => e.event.type === 'input_audio_buffer.committed'"
RETRIEVED = (
    "() => omnid.events.filter(e => e.event.type === 'conversation.item.retrieved')"
    ".map(e => e.event.item.content.map(part => part.transcript ?? '').join(' '))"
)
RESPONSES = (
    "() => omnid.events.filter(e => e.event.type === 'response.done').map(e => e.event.response)"
)


def count(kind: str, number: int) -> str:
    return f"() => omnid.events.filter(e => e.event.type === {kind!r}).length >= {number}"


async def connect(page: Any, url: str) -> None:
    await page.goto(url)
    await page.wait_for_function("() => !document.getElementById('connect').disabled")
    await page.click("#connect")
    await page.wait_for_function("() => omnid.state === 'listening'")


async def heard_by_server(page: Any, item_id: str) -> np.ndarray:
    """The item's audio as the server kept it, 24 kHz."""
    await page.evaluate(
        "id => omnid.send({type: 'conversation.item.retrieve', item_id: id})", item_id
    )
    await page.wait_for_function(count("conversation.item.retrieved", 1))
    part = await page.evaluate(
        "() => omnid.events.find(e => e.event.type === 'conversation.item.retrieved')"
        ".event.item.content[0]"
    )
    return np.frombuffer(base64.b64decode(part["audio"]), np.int16)


def envelope(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """Loudness in steps of 20 ms, without its mean.

    Gain control and echo cancellation leave its shape.
    """
    size = rate_hz * BLOCK_MS // 1000
    blocks = pcm[: len(pcm) // size * size].astype(np.float64).reshape(-1, size)
    loudness = np.log10(np.sqrt((blocks**2).mean(axis=1)) + 30)
    return np.asarray(loudness - loudness.mean())


def likeness(heard: np.ndarray, spoken: np.ndarray) -> float:
    """Largest correlation of two envelopes over all shifts, 0..1."""
    correlation = np.correlate(heard, spoken, mode="full").max()
    return float(correlation / (np.linalg.norm(heard) * np.linalg.norm(spoken)))


async def test_spoken_conversation(
    browse: Callable[..., Any],
    omnid_server: str,
    microphone_wav: Callable[..., Path],
    fixtures: Path,
    tmp_path: Path,
) -> None:
    microphone = microphone_wav(("speech_count", "speech_colour"), (2.5, 7.0), end_s=60.0)
    async with browse(microphone) as page:
        await connect(page, omnid_server)
        await page.click("#camera")
        await page.wait_for_function(count("output_audio_buffer.started", 2), timeout=60_000)
        await page.wait_for_function(
            f"() => omnid.events.filter({OVER}).length >= 2", timeout=60_000
        )
        await page.screenshot(path=tmp_path / "page.png")

        assert await page.evaluate("omnid.replyPeakDb") > AUDIBLE_DB
        streams = await page.evaluate("omnid.stats()")
        reply = next(s for s in streams if s["type"] == "inbound-rtp" and s["kind"] == "audio")
        assert reply["totalAudioEnergy"] > 1e-4

        captions = await page.locator(".turn.assistant").all_inner_texts()
        assert len(captions) >= 2
        assert all(caption.strip() for caption in captions[:2])
        assert 0 < await page.evaluate("omnid.lastLatencyMs") < 20_000
        assert "first sound" in await page.inner_text("#stages")
        assert "babbles" in await page.inner_text("#babble")

        first, second = (
            response["usage"]["input_token_details"]
            for response in (await page.evaluate(RESPONSES))[:2]
        )
        assert 15 < first["audio_tokens"] < 60  # about two seconds, 13 tokens a second
        assert first["image_tokens"] > 0
        assert second["audio_tokens"] > first["audio_tokens"]  # the first turn is remembered

        item_id = await page.evaluate(f"() => omnid.events.find({COMMITTED}).event.item_id")
        heard = await heard_by_server(page, item_id)
        with wave.open(str(fixtures / "speech_count.wav")) as source:
            spoken = np.frombuffer(source.readframes(source.getnframes()), np.int16)
        other = np.random.default_rng(0).normal(0, 3000, len(spoken)).astype(np.int16)
        alike = likeness(envelope(heard, 24_000), envelope(spoken, 16_000))
        assert alike > 0.5  # 0.72 measured; the browser cleans its microphone up
        assert likeness(envelope(heard, 24_000), envelope(other, 16_000)) < 0.3
        assert page.problems == []


async def test_typed_turn_and_stop(browse: Callable[..., Any], omnid_server: str) -> None:
    async with browse() as page:
        await connect(page, omnid_server)
        await page.click("#microphone")  # Chromium's own fake microphone beeps
        await page.fill("#text", "Tell me a long story.")
        await page.keyboard.press("Enter")
        await page.wait_for_function(count("output_audio_buffer.started", 1), timeout=60_000)
        await page.click("#stop")
        await page.wait_for_function(f"() => omnid.events.some({OVER})")
        await page.wait_for_function("() => omnid.state === 'listening'")
        assert await page.locator(".turn.user").all_inner_texts() == ["Tell me a long story."]
        assert await page.locator(".turn.assistant").count() == 1
        assert page.problems == []


async def test_spoken_conversation_over_websocket(
    browse: Callable[..., Any], omnid_server: str, microphone_wav: Callable[..., Path]
) -> None:
    microphone = microphone_wav(("speech_count",), (2.5,), end_s=60.0)
    async with browse(microphone) as page:
        await connect(page, f"{omnid_server}/?transport=websocket")
        await page.click("#camera")
        await page.wait_for_function(count("output_audio_buffer.stopped", 1), timeout=60_000)
        assert await page.evaluate("omnid.transport") == "websocket"
        assert await page.evaluate("omnid.replyPeakDb") > AUDIBLE_DB
        assert (await page.locator(".turn.assistant").first.inner_text()).strip()
        assert 0 < await page.evaluate("omnid.lastLatencyMs") < 20_000
        assert "first sound" in await page.inner_text("#stages")
        used = (await page.evaluate(RESPONSES))[0]["usage"]["input_token_details"]
        assert 15 < used["audio_tokens"] < 60
        assert used["image_tokens"] > 0

        await page.fill("#text", "Tell me a long story.")
        await page.keyboard.press("Enter")
        await page.wait_for_function(count("output_audio_buffer.started", 2), timeout=60_000)
        await page.wait_for_timeout(300)
        await page.keyboard.press("Escape")
        await page.wait_for_function(count("conversation.item.truncated", 1))
        await page.wait_for_function("() => omnid.state === 'listening'")
        await page.wait_for_function(count("conversation.item.retrieved", 1))
        (kept,) = await page.evaluate(RETRIEVED)
        shown = await page.locator(".turn.assistant").nth(1).inner_text()
        assert shown.split("interrupted")[0].strip(" —") == kept.strip()
        assert await page.is_hidden("#error")
        assert page.problems == []
