"""No request makes the server fail: schemathesis writes them from the routes' own description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread

import pytest
import schemathesis
from daemon_rig import Rig, serving
from hypothesis import HealthCheck, Phase, given, settings

ROUTES = {
    "/v1/chat/completions",
    "/v1/audio/speech",
    "/v1/models",
    "/v1/models/{model_id}",
    "/v1/realtime",
    "/v1/realtime/calls",
    "/v1/realtime/calls/{call_id}/hangup",
    "/v1/realtime/client_secrets",
    "/health",
    "/ready",
    "/healthz",
    "/metrics",
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A server on a thread of its own: what asks it blocks."""
    served: Future[tuple[Rig, asyncio.Event, asyncio.AbstractEventLoop]] = Future()

    async def serve() -> None:
        async with serving() as rig:
            is_over = asyncio.Event()
            served.set_result((rig, is_over, asyncio.get_running_loop()))
            await is_over.wait()

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    found, is_over, loop = served.result(timeout=30)
    yield found
    loop.call_soon_threadsafe(is_over.set)
    thread.join()


async def test_every_route_is_described_and_shown_offline() -> None:
    async with serving() as rig:
        schema = json.loads((await rig.fetch("GET", "/openapi.json")).text)
        assert set(schema["paths"]) >= ROUTES
        parts = schema["components"]["schemas"]
        assert {"ChatMessage", "ContentPart"} <= set(parts)
        assert "$defs" not in json.dumps(schema)
        page = await rig.fetch("GET", "/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert all(f" {path}</code>" in page.text for path in ROUTES)
        # nothing is fetched from anywhere, and no script could
        assert "<script" not in page.text
        assert "src=" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_no_request_makes_the_server_fail(rig: Rig) -> None:
    schema = schemathesis.openapi.from_url(f"{rig.http}/openapi.json")
    cases = schema.as_strategy()
    met: set[str] = set()

    @settings(
        max_examples=80,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: schemathesis.Case) -> None:
        answer = case.call()
        met.add(case.path)
        assert answer.status_code < 500, (answer.status_code, answer.text[:500])
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "code", "param"}

    ask()
    assert {"/v1/chat/completions", "/v1/audio/speech"} <= met
