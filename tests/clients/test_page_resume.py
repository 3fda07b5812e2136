"""The page in a real Chromium comes back to its session after a broken line, over WebSocket.

The daemon is real, its engine is scripted; the line is a proxy of TCP that can be cut.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from daemon_rig import free_socket, serving, until
from fake_engine import Script

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

UP = "() => omnid.transport === 'websocket' && omnid.state !== 'connecting'"
DOWN = "() => omnid.state === 'reconnecting'"
PATIENCE_S = 20.0  # browsers on busy machines
WORDS = ("One", " two", " three", " four", " five")
FRAMES = 30  # 2.4 s
OF_KIND = "kind => omnid.events.filter(e => e.event.type === kind)"


class Line:
    """Connections to a server, through a port of its own."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._ends: set[asyncio.StreamWriter] = set()
        self.is_cut = False

    def cut(self) -> None:
        """Nobody is told, and nobody gets through, until it is mended."""
        self.is_cut = True
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._ends |= {writer, far_writer}
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._ends -= {writer, far_writer}


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[tuple[Line, str]]:
    line = Line(port)
    with free_socket() as listener:
        server = await asyncio.start_server(line.carry, sock=listener)
        try:
            yield line, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.close()
            line.cut()


@asynccontextmanager
async def talking(browse: Callable[..., Any], url: str) -> AsyncIterator[Any]:
    """A page that has asked something by keyboard; nobody speaks. `page.received`: all that came
    from the server.
    """
    async with browse() as page:
        page.received = []

        def hear(socket: Any) -> None:
            socket.on("framereceived", lambda text: page.received.append(json.loads(text)))

        page.on("websocket", hear)
        await page.goto(f"{url}/?transport=websocket")
        await page.wait_for_function("() => !document.getElementById('connect').disabled")
        await page.click("#connect")
        await page.wait_for_function(UP)
        await page.click("#microphone")
        await page.fill("#text", "hello there")
        await page.keyboard.press("Enter")
        yield page


async def test_a_reply_goes_on_over_a_new_line(browse: Callable[..., Any]) -> None:
    """It is cut while the reply is made and played; the rest is made while nobody is there."""
    script = Script(words=WORDS, num_frames=FRAMES, holds_at=FRAMES // 2)
    async with (
        serving(script) as rig,
        line_to(rig.port) as (line, url),
        talking(browse, url) as page,
    ):
        await page.wait_for_function("() => omnid.state === 'speaking'")
        await until(lambda: rig.engine.response.num_frames == FRAMES // 2, PATIENCE_S)
        line.cut()
        await page.wait_for_function(DOWN)
        rig.engine.response.go_on()
        await until(lambda: rig.engine.response.num_frames == FRAMES, PATIENCE_S)
        await page.click("#manual")  # what is wished for meanwhile is done afterwards
        line.mend()
        await page.wait_for_function(UP.replace("connecting", "reconnecting"), timeout=10_000)
        await page.wait_for_function(f"() => ({OF_KIND})('output_audio_buffer.stopped').length")
        assert await page.locator(".turn.assistant").all_inner_texts() == ["".join(WORDS)]
        assert await page.evaluate("omnid.state") == "listening"
        assert await page.is_hidden("#error")
        created = await page.evaluate(OF_KIND, "session.created")
        assert len({each["event"]["session"]["id"] for each in created}) == 1
        assert len(created) == 2
        deltas = [each for each in page.received if each["type"] == "response.output_audio.delta"]
        assert len({each["event_id"] for each in deltas}) == len(deltas), "nothing comes twice"
        pcm = b"".join(base64.b64decode(each["delta"]) for each in deltas)
        assert len(pcm) == 2 * FRAMES * 1_920
        items = await page.evaluate(OF_KIND, "conversation.item.create")
        assert len(items) == 1, "nothing is made anew"
        (session,) = rig.app.state.sessions._live.values()
        await until(lambda: session.session.session.turn_detection is None, PATIENCE_S)
        story = ["user: hello there", f"assistant: {''.join(WORDS)}"]
        assert rig.engine.context.story[:2] == story
        assert len(rig.engine.contexts) == 1


async def test_a_session_that_is_gone_is_made_anew(browse: Callable[..., Any]) -> None:
    script = Script(words=WORDS, num_frames=5)
    async with (
        serving(script, websocket__resume_grace_s=0.1) as rig,
        line_to(rig.port) as (line, url),
        talking(browse, url) as page,
    ):
        await page.wait_for_function(f"() => ({OF_KIND})('output_audio_buffer.stopped').length")
        line.cut()
        await page.wait_for_function(DOWN)
        await until(lambda: rig.num_live == 0, PATIENCE_S)
        line.mend()
        await page.wait_for_function(UP.replace("connecting", "reconnecting"), timeout=10_000)
        await until(lambda: rig.num_live == 1, PATIENCE_S)
        story = ["user: hello there", f"assistant: {''.join(WORDS)}"]
        await until(lambda: rig.engine.contexts[-1].story == story, PATIENCE_S)
        assert len(rig.engine.contexts) == 2
