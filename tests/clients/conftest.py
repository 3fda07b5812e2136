"""Fixtures of the clients' tests: a fake Realtime server in a thread, and a real headless Chromium.
 Chromium gets a WAV file as microphone and a y4m file as camera. Where it is absent its tests are
skipped, loudly; with OMNID_REQUIRE_BROWSER=1 (as in `.ci/run`) they fail.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS / "daemon"), str(_TESTS / "pipeline")]  # the rig and scripted engine

CHROMIUM = (
    os.environ.get("OMNID_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--allow-loopback-in-peer-connection",
]
MICROPHONE_HZ = 48_000
CAMERA_COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


def _load(name: str) -> ModuleType:
    """A module beside this file: with importlib mode the folder is not on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------- the fake server
@dataclass
class FakeServer:
    """A running fake Realtime server; `script` may be changed while it runs."""

    url: str
    script: Any
    seen: Any
    stop: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A fake server that also serves the page.

    `stop()` and `start()` make it vanish and come back on its port.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _load("fake_tracks")  # the server imports it
    fake = _load("fake_realtime")
    server = FakeServer(
        f"http://127.0.0.1:{port}", fake.Script(), fake.Seen(), lambda: None, lambda: None
    )
    running: list[tuple[Any, threading.Thread]] = []

    def start() -> None:
        ready = threading.Event()
        stopped: list[Callable[[], None]] = []
        thread = threading.Thread(
            target=lambda: asyncio.run(_serve(fake, server, port, ready, stopped)),
            name="fake-server",
        )
        thread.start()
        assert ready.wait(10)
        running.append((stopped[0], thread))

    def stop() -> None:
        while running:
            end, thread = running.pop()
            end()
            thread.join(10)
            assert not thread.is_alive()

    server.start, server.stop = start, stop
    start()
    yield server
    stop()


async def _serve(
    fake: ModuleType,
    server: FakeServer,
    port: int,
    ready: threading.Event,
    stopped: list[Callable[[], None]],
) -> None:
    import aioice.ice
    import uvicorn
    from fastapi.staticfiles import StaticFiles

    # aioice leaves 127.0.0.1 out, but a machine without network has nothing else.
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    app = fake.build_app(server.script, server.seen)
    page = Path(__file__).parents[2] / "clients" / "browser"
    app.mount("/", StaticFiles(directory=page, html=True))
    config = uvicorn.Config(
        app,
        "127.0.0.1",
        port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        ws="websockets-sansio",
    )
    web = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.call_soon_threadsafe(setattr, web, "should_exit", True)

    stopped.append(end)
    task = loop.create_task(web.serve())
    while not web.started and not task.done():  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.01)
    ready.set()
    await task
    await app.state.close()


# ------------------------------------------------------------------------------- the real server
@pytest.fixture(scope="session")
def omnid_server() -> Iterator[str]:
    """The URL of a running `omnid serve` with a random model, ready to talk, and at length."""
    yield from _serving("--model", "tiny")


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[str]:
    """The same with the model that is served when none is named."""
    yield from _serving()


def _serving(*flags: str) -> Iterator[str]:
    command = [sys.executable, "-m", "daemon", "serve", "--port", "0", *flags]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            assert words[:1] == ["Open"], words
            _wait_until_ready(words[1])
            yield words[1].rstrip("/")
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                raise


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 120
    state = "absent"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}healthz", timeout=10) as reply:
                state = json.load(reply)["state"]
        except urllib.error.HTTPError as error:
            with error:
                state = json.load(error)["state"]
        if state != "loading":
            break
        time.sleep(0.2)
    assert state == "ready"


# ------------------------------------------------------------------------------- the browser
@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is; skips, or fails where a browser is required."""
    if CHROMIUM:
        return CHROMIUM
    message = (
        "NO BROWSER: chromium is not installed, the page is NOT tested (apt-get install chromium)"
    )
    if os.environ.get("OMNID_REQUIRE_BROWSER") == "1":
        pytest.fail(message)
    pytest.skip(message)


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """[num_samples] int16 and the rate of a mono 16-bit file."""
    with wave.open(str(path)) as source:
        assert (source.getnchannels(), source.getsampwidth()) == (1, 2)
        return np.frombuffer(
            source.readframes(source.getnframes()), np.int16
        ), source.getframerate()


@pytest.fixture
def microphone_wav(tmp_path: Path, fixtures: Path) -> Callable[..., Path]:
    """Makes a microphone recording.

    Each named utterance after a pause of `gaps_s`, then silence.
    """

    def make(names: tuple[str, ...], gaps_s: tuple[float, ...], end_s: float = 20.0) -> Path:
        parts: list[np.ndarray] = []
        for name, gap_s in zip(names, gaps_s, strict=True):
            speech, rate_hz = read_wav(fixtures / f"{name}.wav")
            positions = np.arange(len(speech) * MICROPHONE_HZ // rate_hz) * rate_hz / MICROPHONE_HZ
            parts.append(np.zeros(int(gap_s * MICROPHONE_HZ), np.int16))
            parts.append(np.interp(positions, np.arange(len(speech)), speech).astype(np.int16))
        parts.append(np.zeros(int(end_s * MICROPHONE_HZ), np.int16))
        path = tmp_path / "microphone.wav"
        with wave.open(str(path), "wb") as target:
            target.setnchannels(1)
            target.setsampwidth(2)
            target.setframerate(MICROPHONE_HZ)
            target.writeframes(np.concatenate(parts).tobytes())
        return path

    return make


@pytest.fixture(scope="session")
def camera_y4m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera at 10 frames a second: one second each of red, green and blue, again and again."""
    path: Path = tmp_path_factory.mktemp("camera") / "colours.y4m"
    write_camera(path, tuple(CAMERA_COLOURS))
    return path


@pytest.fixture(scope="session")
def red_camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera before a red wall."""
    path: Path = tmp_path_factory.mktemp("camera") / "red.y4m"
    write_camera(path, ("red",))
    return path


@pytest.fixture(scope="session")
def large_camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that can do more than what the page takes as video."""
    path: Path = tmp_path_factory.mktemp("camera") / "large.y4m"
    write_camera(path, ("green",), width=1280, height=960)
    return path


def write_camera(
    path: Path, colours: tuple[str, ...], *, width: int = 320, height: int = 240
) -> None:
    """A video of plain colours, a second each."""
    import av

    with path.open("wb") as target:
        target.write(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode())
        for colour in (CAMERA_COLOURS[name] for name in colours):
            rgb = np.full((height, width, 3), colour, np.uint8)
            yuv = (
                av.VideoFrame.from_ndarray(rgb, format="rgb24")
                .reformat(format="yuv420p")
                .to_ndarray()
            )
            target.write((b"FRAME\n" + yuv.tobytes()) * 10)


@pytest.fixture
def browse(chromium_path: str, camera_y4m: Path) -> Callable[..., Any]:
    """`async with browse(microphone=…) as page`: a page of a new Chromium.

    `page.problems` lists console errors.
    """
    from playwright.async_api import async_playwright

    @asynccontextmanager
    async def open_page(
        microphone: Path | None = None, camera: Path = camera_y4m, **context: Any
    ) -> AsyncIterator[Any]:
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={camera}"]
        if microphone is not None:
            flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=chromium_path, headless=True, args=flags
            )
            try:
                page = await (await browser.new_context(**context)).new_page()
                problems: list[str] = []
                page.on(
                    "console",
                    lambda line: problems.append(line.text) if line.type == "error" else None,
                )
                page.on("pageerror", lambda error: problems.append(str(error)))
                page.problems = problems
                yield page
            finally:
                await browser.close()

    return open_page
