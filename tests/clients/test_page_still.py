"""The model asks the page, in a real Chromium, for a sharp picture, and answers with it in mind."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

FORCED = {"tool_choice": {"type": "function", "name": "take_still"}, "output_modalities": ["text"]}
SENT = "() => omnid.events.filter(e => e.direction === 'out').map(e => e.event)"
DONE = "() => omnid.events.filter(e => e.event.type === 'response.done').map(e => e.event.response)"


async def ask(page: Any, num_responses: int) -> list[dict[str, Any]]:
    """Make the model call for a picture; what the page said then."""
    await page.evaluate("r => omnid.send({type: 'response.create', response: r})", FORCED)
    await page.wait_for_function(f"() => ({DONE})().length >= {num_responses}", timeout=60_000)
    sent: list[dict[str, Any]] = await page.evaluate(SENT)
    last = max(i for i, event in enumerate(sent) if event.get("response") is not None)
    return sent[last + 1 :]


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_a_still_is_taken_on_request_as_large_as_the_camera_can(
    browse: Callable[..., Any],
    embedded_server: str,
    microphone_wav: Callable[..., Path],
    large_camera: Path,
    transport: str,
) -> None:
    async with browse(microphone_wav((), ()), camera=large_camera) as page:
        await page.goto(f"{embedded_server}/?stills&transport={transport}")
        await page.wait_for_function("() => !document.getElementById('connect').disabled")
        await page.click("#connect")
        await page.wait_for_function("() => omnid.state === 'listening'")

        (output, asked) = await ask(page, 2)
        assert json.loads(output["item"]["output"]) == {"error": "The camera is off."}
        assert asked == {"type": "response.create"}

        await page.click("#camera")
        await page.wait_for_function("() => document.getElementById('preview').videoWidth === 640")
        (output, message, asked) = await ask(page, 4)
        assert json.loads(output["item"]["output"]) == {"width": 1280, "height": 960}
        (part,) = message["item"]["content"]
        data = base64.b64decode(part["image_url"].removeprefix("data:image/jpeg;base64,"))
        picture = Image.open(io.BytesIO(data))
        assert picture.size == (1280, 960)
        assert np.asarray(picture).mean(axis=(0, 1)) == pytest.approx((30, 200, 30), abs=12)
        usage = (await page.evaluate(DONE))[-1]["usage"]
        assert usage["input_token_details"]["image_tokens"] > 0
        assert await page.locator(".turn.user").all_inner_texts() == ["(picture)"]
        assert await page.evaluate("() => document.getElementById('preview').videoWidth") == 640
        errors = "() => omnid.events.filter(e => e.event.type === 'error').map(e => e.event)"
        assert await page.evaluate(errors) == []
        assert page.problems == []
