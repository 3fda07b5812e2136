"""The page in a real Chromium against a fake server.

Every control, and what happens when things go wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

CONNECTED = "() => !['offline', 'loading', 'connecting', 'reconnecting'].includes(omnid.state)"
TYPES = "(direction) => omnid.events.filter(e => e.direction === direction).map(e => e.event.type)"


def count(kind: str, number: int) -> str:
    return f"() => omnid.events.filter(e => e.event.type === {kind!r}).length >= {number}"


async def connect(page: Any, url: str) -> None:
    await page.goto(url)
    await page.wait_for_function("() => !document.getElementById('connect').disabled")
    await page.click("#connect")
    await page.wait_for_function(CONNECTED)


async def test_speaks_and_hears(
    browse: Callable[..., Any],
    fake_server: Any,
    microphone_wav: Callable[..., Path],
    tmp_path: Path,
) -> None:
    microphone = microphone_wav(("speech_count", "speech_colour"), (1.5, 3.0))
    async with browse(microphone) as page:
        await connect(page, fake_server.url)
        await page.click("#camera")
        await page.wait_for_function(count("output_audio_buffer.stopped", 2), timeout=20_000)
        assert await page.evaluate("omnid.replyPeakDb") > -40
        assert await page.locator(".turn.assistant").all_inner_texts() == ["one two three"] * 2
        assert await page.locator(".turn.user").count() == 2
        assert 750 < await page.evaluate("omnid.lastLatencyMs") < 2_000  # 700 of them by the server
        audio = [
            entry for entry in await page.evaluate("omnid.stats()") if entry["kind"] == "audio"
        ]
        assert next(e for e in audio if e["type"] == "inbound-rtp")["totalAudioEnergy"] > 0.01
        assert len(fake_server.seen.colours) > 10
        assert "encoder 3" in await page.inner_text("#stages")
        assert page.problems == []
        await page.screenshot(path=tmp_path / "page.png")
        await page.click("#connect")
        await page.wait_for_function("() => omnid.state === 'offline'")
    assert fake_server.seen.hangups == 1
    update = next(e for e in fake_server.seen.events if e["type"] == "session.update")
    assert update["session"]["audio"]["input"]["turn_detection"] == {"type": "semantic_vad"}


async def test_types_and_stops(browse: Callable[..., Any], fake_server: Any) -> None:
    fake_server.script.reply_s = 8.0
    async with browse() as page:
        await connect(page, fake_server.url)
        await page.click("#microphone")  # the fake device beeps
        await page.fill("#text", "hello there")
        await page.keyboard.press("Enter")
        await page.wait_for_function("() => omnid.state === 'speaking'")
        await page.wait_for_function("() => omnid.replyPeakDb > -40")
        await page.keyboard.press("Escape")
        await page.wait_for_function(count("output_audio_buffer.cleared", 1))
        assert "hello there" in await page.inner_text(".turn.user")
        # Told by another event than the one that says that the sound is gone.
        await page.wait_for_function(
            "() => document.querySelector('.turn.assistant').innerText.includes('interrupted')"
        )
        # Of what was told of the reply only that is left which was heard.
        await page.wait_for_function(
            "() => /one two +— inter/.test(document.querySelector('.turn.assistant').innerText)"
        )
        assert page.problems == []


async def test_push_to_talk(browse: Callable[..., Any], fake_server: Any) -> None:
    async with browse() as page:
        await connect(page, fake_server.url)
        await page.click("#manual")
        await page.keyboard.down("Space")
        await page.wait_for_function("() => omnid.state === 'hearing'")
        await page.wait_for_timeout(600)
        await page.keyboard.up("Space")
        await page.wait_for_function(count("response.done", 1))
        sent = await page.evaluate(TYPES, "out")
        assert sent[-3:] == [
            "input_audio_buffer.clear",
            "input_audio_buffer.commit",
            "response.create",
        ]
        await page.keyboard.press("Space")  # a slip: shorter than a turn
        await page.wait_for_timeout(300)
        assert (await page.evaluate(TYPES, "out")).count("input_audio_buffer.commit") == 1


async def test_returns_after_the_server_was_gone(
    browse: Callable[..., Any], fake_server: Any
) -> None:
    async with browse() as page:
        await connect(page, fake_server.url)
        await page.click("#microphone")
        await page.fill("#text", "remember me")
        await page.keyboard.press("Enter")
        await page.wait_for_function(count("response.done", 1))
        fake_server.stop()
        await page.wait_for_function("() => omnid.state === 'reconnecting'", timeout=15_000)
        assert "Trying again" in await page.inner_text("#error")
        fake_server.seen.events.clear()
        fake_server.start()
        await page.wait_for_function(CONNECTED, timeout=20_000)
        await page.wait_for_timeout(300)
    created = [
        e["item"] for e in fake_server.seen.events if e["type"] == "conversation.item.create"
    ]
    assert [item["role"] for item in created] == ["user", "assistant"]
    assert [item["content"][0]["text"] for item in created] == ["remember me", "one two three"]


async def test_hangs_up_when_the_page_is_left(browse: Callable[..., Any], fake_server: Any) -> None:
    async with browse() as page:
        await connect(page, fake_server.url)
        await page.goto("about:blank")
        await page.wait_for_timeout(500)
    assert fake_server.seen.hangups == 1


async def test_asks_for_a_key(browse: Callable[..., Any], fake_server: Any) -> None:
    fake_server.script.key = "sesame"
    async with browse() as page:
        await page.goto(fake_server.url)
        await page.wait_for_function("() => !document.getElementById('connect').disabled")
        await page.click("#connect")
        await page.fill("#key", "sesame")
        await page.keyboard.press("Enter")
        await page.wait_for_function(CONNECTED)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ("NotAllowedError", "Permission for the microphone was denied"),
        ("NotFoundError", "No micro"),
    ],
)
async def test_without_microphone_one_can_type(
    browse: Callable[..., Any], fake_server: Any, refusal: str, words: str
) -> None:
    async with browse() as page:
        await page.add_init_script(
            "navigator.mediaDevices.getUserMedia = "
            f"async () => {{ throw new DOMException('', '{refusal}') }}"
        )
        await connect(page, fake_server.url)
        assert words in await page.inner_text("#error")
        await page.fill("#text", "hello")
        await page.keyboard.press("Enter")
        await page.wait_for_function(count("output_audio_buffer.stopped", 1))


async def test_tells_what_the_server_is(browse: Callable[..., Any], fake_server: Any) -> None:
    fake_server.script.health.update(state="loading")
    async with browse() as page:
        await page.goto(fake_server.url)
        await page.wait_for_function("() => document.body.dataset.state === 'loading'")
        assert await page.is_disabled("#connect")
        fake_server.script.health.update(state="failed", error="no such folder")
        await page.wait_for_function("() => document.body.dataset.state === 'failed'")
        assert "no such folder" in await page.inner_text("#error")
        fake_server.script.health.update(state="ready")
        await page.wait_for_function(
            "() => document.body.dataset.state === 'offline'", timeout=8_000
        )
        assert "babbles" in await page.inner_text("#babble")
        assert await page.is_hidden("#error")
