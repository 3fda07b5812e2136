"""A whole server on an ephemeral port: scripted engine behind it, loudness as voice detector."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fake_engine import FakeEngine, Script
from fastapi import FastAPI

from daemon.server import Server, create_app, uvicorn_config
from daemon.settings import Settings, load
from pipeline.messages import EngineReady, Pcm

RATE_HZ = 24_000
READY = EngineReady(
    checkpoint="fake-omni",
    voices=("Ethan", "Chelsie"),
    device="cpu",
    dtype="float32",
    is_babbling=True,
    max_context_tokens=1000,
)


class FakeSupervisor:
    """Says that its engine is in the state that a test wants."""

    def __init__(self, engine: FakeEngine, state: str = "ready") -> None:
        self.engine = engine
        self.state = state
        self.error = "no such checkpoint" if state == "failed" else None
        self.is_started = False
        self.is_closed = False

    @property
    def info(self) -> EngineReady | None:
        return READY if self.state == "ready" else None

    async def start(self) -> None:
        self.is_started = True

    async def aclose(self) -> None:
        self.is_closed = True


class LoudnessVad:
    """Speech is what is louder than 0.05."""

    window_samples = 512

    def probability(self, window: Pcm) -> float:
        return 0.9 if np.abs(window).max() > 0.05 else 0.05

    def reset(self) -> None:
        pass


@dataclass
class Rig:
    """A running server."""

    port: int
    app: FastAPI
    engine: FakeEngine
    supervisor: FakeSupervisor
    server: Server
    settings: Settings

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime?model=qwen3-omni"

    async def fetch(self, method: str, path: str, body: str | bytes = "", **headers: str) -> Answer:
        """One HTTP request; `type` stands for the content type, `_` for `-` in names of headers."""
        named = {
            {"type": "content-type"}.get(name, name.replace("_", "-")): value
            for name, value in headers.items()
        }
        return await asyncio.to_thread(_fetch, self.port, method, path, body, named)

    @property
    def num_live(self) -> int:
        return len(self.app.state.sessions._live)


@dataclass
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)["error"]
        return found


def _fetch(port: int, method: str, path: str, body: str | bytes, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        found = {key.lower(): value for key, value in response.getheaders()}
        return Answer(response.status, found, response.read().decode())
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def serving(
    script: Script | None = None,
    *,
    state: str = "ready",
    engine: FakeEngine | None = None,
    **overrides: Any,
) -> AsyncIterator[Rig]:
    """Serve until the block ends. overrides: settings by `table__name`.

    The tones that are spoken here are no voice to a judge of interruptions.
    """
    overrides = {"turn_detection__judge_interruptions": False, **overrides}
    settings = load(None, {key.replace("__", "."): value for key, value in overrides.items()})
    engine = engine or FakeEngine(script)
    supervisor = FakeSupervisor(engine, state)
    app = create_app(settings, supervisor, new_vad=LoudnessVad)
    server = Server(uvicorn_config(app, settings), app.state.sessions)
    with free_socket() as listener:
        port = listener.getsockname()[1]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            await server.listening.wait()
            try:
                yield Rig(port, app, engine, supervisor, server, settings)
            finally:
                server.should_exit = True
    assert supervisor.is_closed


@contextlib.contextmanager
def free_socket() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def until(condition: Any, timeout_s: float = 5.0) -> None:
    """Wait until a condition of another task's making holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition, of code that signals nothing
            await asyncio.sleep(0.01)


def tone(seconds: float, rate_hz: int = RATE_HZ) -> bytes:
    """PCM16 of a loud tone."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    return (np.sin(2 * np.pi * 300 * t) * 12_000).astype("<i2").tobytes()


def silence(seconds: float, rate_hz: int = RATE_HZ) -> bytes:
    return bytes(2 * int(seconds * rate_hz))
