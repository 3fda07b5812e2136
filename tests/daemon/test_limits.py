"""What a key may take: requests a minute, sessions at once, bytes of a request; and draining."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from daemon_rig import FakeSupervisor, Rig, free_socket, serving, until
from fake_engine import FakeEngine, Script
from mcp_rig import remote
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from daemon import logs
from daemon.auth import Refusal
from daemon.rates import RateLeft, RequestRates
from daemon.server import serve
from daemon.settings import SettingsError, load

CHAT = "/v1/chat/completions"
ASK = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
KEYS = {"authorization": "Bearer key-one"}, {"authorization": "Bearer key-two"}


def headers(key: str) -> dict[str, str]:
    return {"additional_headers": {"Authorization": f"Bearer {key}"}}  # type: ignore[dict-item]


# ------------------------------------------------------------------ requests a minute
def test_a_bucket_refills_steadily() -> None:
    now = [0.0]
    rates = RequestRates(2, now_s=lambda: now[0])
    rates.take("a")
    rates.take("a")
    with pytest.raises(Refusal) as caught:
        rates.take("a")
    assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "30"})
    rates.take("b")
    assert rates.left("b") == RateLeft(limit=2, remaining=1, reset_seconds=30.0)
    now[0] = 31.0
    assert rates.left("b") == RateLeft(limit=2, remaining=2, reset_seconds=0.0)
    assert RequestRates(0).left("b") is None
    rates.take("a")
    with pytest.raises(Refusal):
        rates.take("a")


async def test_too_many_requests_of_a_key() -> None:
    async with serving(
        server__api_keys=["key-one", "key-two"], limits__requests_per_minute=2
    ) as rig:
        for _ in range(2):
            assert (await rig.fetch("POST", CHAT, ASK, **KEYS[0])).status == 200
        answer = await rig.fetch("POST", CHAT, ASK, **KEYS[0])
        assert (answer.status, answer.headers["retry-after"]) == (429, "30")
        assert answer.error["type"] == "rate_limit_error"
        assert answer.error["code"] == "rate_limit_exceeded"
        with pytest.raises(InvalidStatus) as caught:
            await connect(rig.ws, **headers("key-one"))  # type: ignore[arg-type]
        assert caught.value.response.status_code == 429
        assert (await rig.fetch("POST", CHAT, ASK, **KEYS[1])).status == 200


@pytest.mark.parametrize("name", ["resume", "call_id"])
async def test_what_is_tried_at_will_counts(name: str) -> None:
    """A token, or the id of a call, that is wrong costs a request like any other."""
    async with serving(server__api_keys=["key-one"], limits__requests_per_minute=2) as rig:
        url = f"ws://127.0.0.1:{rig.port}/v1/realtime?{name}=wrong"
        statuses = []
        for _ in range(3):
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, **headers("key-one"))  # type: ignore[arg-type]
            statuses.append(caught.value.response.status_code)
        assert statuses == [404, 404, 429]


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/realtime?x-ext=1"])
async def test_a_session_is_told_what_is_left_to_its_key(path: str) -> None:
    async with serving(
        server__api_keys=["key-one", "key-two"], limits__requests_per_minute=5
    ) as rig:
        assert (await rig.fetch("POST", CHAT, ASK, **KEYS[0])).status == 200
        url = f"ws://127.0.0.1:{rig.port}{path}"
        async with connect(url, **headers("key-one")) as socket:  # type: ignore[arg-type]
            await socket.send(json.dumps({"type": "response.create"}))
            requests, tokens = (await next_event(socket, "rate_limits.updated"))["rate_limits"]
            assert (requests["name"], requests["limit"], requests["remaining"]) == (
                "requests",
                5,
                3,
            )
            assert 20 < requests["reset_seconds"] <= 24
            assert (tokens["name"], tokens["remaining"]) == ("tokens", 1_000_000)


# ------------------------------------------------------------------ at once
async def test_too_many_sessions_of_a_key_and_of_its_ephemeral_ones() -> None:
    async with serving(
        server__api_keys=["key-one", "key-two"], limits__max_sessions_per_key=1
    ) as rig:
        made = await rig.fetch("POST", "/v1/realtime/client_secrets", "{}", **KEYS[0])
        secret = json.loads(made.text)["value"]
        async with connect(rig.ws, **headers("key-one")):  # type: ignore[arg-type]
            for key in ("key-one", secret):
                with pytest.raises(InvalidStatus) as caught:
                    await connect(rig.ws, **headers(key))  # type: ignore[arg-type]
                assert caught.value.response.status_code == 429
                assert "retry-after" in caught.value.response.headers
            answer = await rig.fetch("POST", CHAT, ASK, **KEYS[0])
            assert (answer.status, answer.error["code"]) == (429, "too_many_sessions")
            assert (await rig.fetch("POST", CHAT, ASK, **KEYS[1])).status == 200
        await until(lambda: rig.num_live == 0)
        assert (await rig.fetch("POST", CHAT, ASK, **KEYS[0])).status == 200


async def test_a_request_takes_a_place_like_a_session() -> None:
    async with serving(Script(holds_at=1), session__max_sessions=1) as rig:
        first = asyncio.create_task(rig.fetch("POST", CHAT, ASK))
        await until(lambda: rig.engine.responses)
        answer = await rig.fetch("POST", CHAT, ASK)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        rig.engine.response.go_on()
        assert (await first).status == 200


# ------------------------------------------------------------------ bytes
@pytest.mark.parametrize("path", [CHAT, "/v1/audio/speech"])
async def test_a_request_that_is_too_large(path: str) -> None:
    async with serving(limits__max_upload_bytes=1000) as rig:
        answer = await rig.fetch("POST", path, "x" * 1001)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        # told nothing of its length, too: chunked
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"7d0\r\n" + b"x" * 2000 + b"\r\n")
        assert b" 413 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("form", ["text", "json"])
async def test_nothing_that_is_secret_is_logged(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At "debug", where uvicorn and the HTTP client of remote tools tell whole addresses."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    words = {"messages": [{"role": "user", "content": "my-secret-word"}]}
    with logging_restored():
        logs.configure("debug", form)
        async with (
            remote() as town,
            serving(server__api_keys=["key-one"], mcp__hosts=("127.0.0.1",)) as rig,
        ):
            await rig.fetch("POST", CHAT, json.dumps(words), **KEYS[0])
            await rig.fetch("POST", CHAT, json.dumps(words), **KEYS[1])
            await rig.fetch("POST", CHAT, json.dumps(words | {"n": 2}), **KEYS[0])
            minted = await rig.fetch("POST", "/v1/realtime/client_secrets", "{}", **KEYS[0])
            secret = json.loads(minted.text)["value"]
            async with connect(rig.ws + "&x-ext=1", **headers(secret)) as socket:  # type: ignore
                token = (await next_event(socket, "session.created"))["x_resume_token"]
                socket.transport.abort()
            resumed = f"{rig.ws}&resume={token}"
            async with connect(resumed, **headers("key-one")) as socket:  # type: ignore[arg-type]
                tool = town.tool(authorization="key-town") | {
                    "server_url": f"http://127.0.0.1:{town.port}/mcp?token=key-query"
                }
                session = {"type": "realtime", "instructions": "my-secret-word", "tools": [tool]}
                await socket.send(json.dumps({"type": "session.update", "session": session}))
                await next_event(socket, "mcp_list_tools.completed")
                await socket.send(json.dumps({"type": "response.cancel", "event_id": "key-event"}))
                await next_event(socket, "error")
    lines = out.getvalue()
    assert "/mcp?…" in lines, "the HTTP client tells what it asks for"
    assert "/v1/realtime?…" in lines, "uvicorn tells who connects"
    assert not [each for each in ("key-", "my-secret-word", token, secret) if each in lines]


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


# ------------------------------------------------------------------ draining
@contextlib.asynccontextmanager
async def served(script: Script | None = None, **overrides: Any) -> AsyncIterator[tuple[Rig, Any]]:
    """`omnid serve` inside this process: the server that signals end, and its exit code."""
    settings = load(None, {key.replace("__", "."): value for key, value in overrides.items()})
    engine = FakeEngine(script)
    with free_socket() as listener:
        port = listener.getsockname()[1]
        supervisor = FakeSupervisor(engine)
        task = asyncio.create_task(serve(settings, supervisor, listener))
        rig = Rig(port, None, engine, supervisor, None, settings)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(30):
                while not supervisor.is_started:  # noqa: ASYNC110 - nothing signals it
                    await asyncio.sleep(0.01)
                yield rig, task
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"session__voice": "bogus"}, "session.voice"),
        ({"voices__ash": "bogus"}, "voices.ash"),
        ({"voices__ash": "nova"}, "voices.ash"),
    ],
)
async def test_a_voice_that_the_checkpoint_has_not_is_told_at_the_start(
    overrides: dict[str, str], key: str
) -> None:
    async with served(**overrides) as (_, task):
        with pytest.raises(SettingsError, match=f"'{key}': Voice '.*' is not supported"):
            await task


async def next_event(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(await socket.recv())
        if event["type"] == kind:
            return event


async def test_ctrl_c_tells_everybody_and_ends_at_once() -> None:
    """The error, the end of the reply, and why; also on a socket that might have come back."""
    async with served(Script(holds_at=2), server__drain_s=20.0) as (rig, task):
        async with connect(rig.ws) as plain, connect(rig.ws + "&x-ext=1") as resumable:
            for socket in (plain, resumable):
                await next_event(socket, "session.created")
                await socket.send(json.dumps({"type": "response.create"}))
                await next_event(socket, "response.created")
            os.kill(os.getpid(), signal.SIGINT)
            for socket in (plain, resumable):
                error = (await next_event(socket, "error"))["error"]
                assert error["code"] == "server_shutting_down"
                done = await next_event(socket, "response.done")
                assert done["response"]["status"] == "cancelled"
                with pytest.raises(ConnectionClosed) as caught:
                    await next_event(socket, "never")
                assert caught.value.rcvd is not None
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
                    1012,
                    error["message"],
                )
        assert await task == 130


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def test_draining_lets_sessions_end_and_nobody_in() -> None:
    async with served(server__drain_s=20.0) as (rig, task):
        async with connect(rig.ws) as socket:
            await next_event(socket, "session.created")
            assert (await rig.fetch("GET", "/ready")).status == 200
            terminate()
            async with asyncio.timeout(5):
                while (await rig.fetch("GET", "/ready")).status != 503:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert json.loads((await rig.fetch("GET", "/ready")).text)["state"] == "draining"
            assert (await rig.fetch("GET", "/health")).status == 200
            answer = await rig.fetch("POST", CHAT, ASK)
            assert (answer.status, answer.error["code"]) == (503, "not_ready")
            with pytest.raises(InvalidStatus):
                await connect(rig.ws)
            await socket.send(json.dumps({"type": "response.create"}))
            assert (await next_event(socket, "response.done"))["response"]["status"] == "completed"
        assert await task == 0


async def test_who_does_not_end_is_told_and_cut() -> None:
    async with served(Script(holds_at=2), server__drain_s=0.3) as (rig, task):
        body = json.dumps({**json.loads(ASK), "stream": True})
        streamed = asyncio.create_task(rig.fetch("POST", CHAT, body))
        async with connect(rig.ws) as socket:
            await next_event(socket, "session.created")
            await until(lambda: rig.engine.responses)
            terminate()
            error = await next_event(socket, "error")
            assert error["error"]["code"] == "server_shutting_down"
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1012
        assert '"code": "server_shutting_down"' in (await streamed).text
        assert await task == 0


async def test_a_second_signal_does_not_wait() -> None:
    async with served(server__drain_s=20.0) as (rig, task), connect(rig.ws) as socket:
        await next_event(socket, "session.created")
        terminate()
        await asyncio.sleep(0.05)
        terminate()
        assert await task == 0
