"""Routes, and who may use them: keys, Host, Origin, health, metrics, the page."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import pytest
from daemon_rig import Rig, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from daemon.auth import ApiKeys, Refusal
from daemon.client_secrets import ClientSecrets

KEY = "secret-key"


async def refused(rig: Rig, path: str = "/v1/realtime?model=m", **options: Any) -> InvalidStatus:
    """The HTTP answer in place of an upgrade."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://127.0.0.1:{rig.port}{path}", **options):
            pass
    return caught.value


def code_of(refusal: InvalidStatus) -> str:
    body = json.loads(refusal.response.body or b"{}")
    return str(body["error"]["code"])


async def test_without_a_key_nothing_is_served_but_the_page_and_health() -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        for path in ("/v1/models", "/metrics"):
            answer = await rig.fetch("GET", path)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
            assert (await rig.fetch("GET", path, authorization=f"Bearer {KEY}")).status == 200
            assert (await rig.fetch("GET", path, authorization="Bearer no")).status == 401
        assert (
            await rig.fetch("POST", "/v1/realtime/calls", "v=0", type="application/sdp")
        ).status == 401
        assert (await rig.fetch("POST", "/v1/realtime/calls/rtc_x/hangup")).status == 401
        assert (await rig.fetch("GET", "/")).status == 200
        assert (await rig.fetch("GET", "/healthz")).status == 200


async def test_keys_of_websockets() -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        for options in ({}, {"additional_headers": {"Authorization": "Bearer x"}}):
            refusal = await refused(rig, **options)
            assert refusal.response.status_code == 401
            assert code_of(refusal) == "invalid_api_key"
        async with connect(rig.ws, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
            assert socket.subprotocol is None
        offered = ["realtime", f"openai-insecure-api-key.{KEY}", "openai-agents-sdk.1"]
        async with connect(rig.ws, subprotocols=offered) as socket:
            assert socket.subprotocol == "realtime"
        refusal = await refused(rig, subprotocols=["realtime", "openai-insecure-api-key.x"])
        assert refusal.response.status_code == 401


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "rebind.evil:80"}, "host_not_allowed"),
        ({"Host": "192.168.0.7"}, "host_not_allowed"),
        ({"Host": ""}, "host_not_allowed"),
        ({"Origin": "https://evil.com"}, "origin_not_allowed"),
        ({"Origin": "null"}, "origin_not_allowed"),
        ({"Origin": "http://["}, "origin_not_allowed"),
        ({"Host": "evil.com", "Origin": "http://evil.com"}, "host_not_allowed"),
    ],
)
async def test_foreign_hosts_and_origins(headers: dict[str, str], code: str) -> None:
    async with serving() as rig:
        for method, path in (("GET", "/"), ("POST", "/v1/realtime/calls")):
            answer = await rig.fetch(method, path, "x", **headers)
            assert (answer.status, answer.error["code"]) == (403, code)
        if "Host" not in headers:
            refusal = await refused(rig, additional_headers=headers)
            assert (refusal.response.status_code, code_of(refusal)) == (403, code)


async def test_our_own_and_listed_origins() -> None:
    async with serving(server__allowed_origins=["https://app.example"]) as rig:
        for origin in (rig.http, "https://app.example"):
            async with connect(rig.ws, origin=origin):
                pass
        answer = await rig.fetch(
            "OPTIONS",
            "/v1/realtime/calls",
            Origin="https://app.example",
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="authorization, x-stainless-lang",
        )
        assert answer.status == 200
        assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = await rig.fetch("POST", "/v1/realtime/calls", "x", Origin="https://app.example")
        assert answer.headers["access-control-expose-headers"] == "Location"


async def test_addresses_of_the_protocol_that_are_not_served() -> None:
    async with serving() as rig:
        refusal = await refused(rig, "/v1/realtime?call_id=rtc_nope")
        assert (refusal.response.status_code, code_of(refusal)) == (404, "call_id_not_found")
        assert (await refused(rig, "/nowhere")).response.status_code in (403, 404)
        answer = await rig.fetch("DELETE", "/v1/models")
        assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET"
        answer = await rig.fetch("POST", "/v1/realtime/sessions", "{}")
        assert (answer.status, answer.error["code"]) == (410, "not_supported")


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_an_engine_that_is_not_ready(state: str) -> None:
    async with serving(state=state) as rig:
        answer = await rig.fetch("GET", "/healthz")
        report = json.loads(answer.text)
        assert (answer.status, report["state"]) == (503, state)
        assert ("error" in report) == (state == "failed")
        refusal = await refused(rig)
        assert refusal.response.status_code == 503
        assert refusal.response.headers["retry-after"] == "5"
        offer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
        answer = await rig.fetch("POST", "/v1/realtime/calls", offer, type="application/sdp")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_no_more_sessions_than_there_are_places() -> None:
    async with serving(session__max_sessions=1) as rig:
        async with connect(rig.ws):
            refusal = await refused(rig)
            assert (refusal.response.status_code, code_of(refusal)) == (503, "too_many_sessions")
            text = (await rig.fetch("GET", "/metrics")).text
            assert 'omnid_sessions{transport="websocket"} 1.0' in text
            assert 'omnid_sessions_refused_total{reason="full"} 1.0' in text
        async with connect(rig.ws):
            pass


async def test_health_and_models_when_ready() -> None:
    async with serving() as rig:
        report = json.loads((await rig.fetch("GET", "/healthz")).text)
        assert report["state"] == "ready"
        assert report["model"] == "fake-omni"
        assert report["is_babbling"] is True
        assert "cores" in report["machine"]
        assert report["version"] == version("omnid")
        models = json.loads((await rig.fetch("GET", "/v1/models")).text)
        assert [model["id"] for model in models["data"]] == ["fake-omni"]
        assert "omnid_engine_ready 1.0" in (await rig.fetch("GET", "/metrics")).text


async def test_the_page_and_its_files() -> None:
    async with serving() as rig:
        page = await rig.fetch("GET", "/")
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.text == (await rig.fetch("GET", "/index.html")).text
        for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css")):
            answer = await rig.fetch("GET", f"/{name}")
            assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)


@pytest.mark.parametrize(
    "path",
    [
        "/../daemon/settings.py",
        "/..%2fdaemon%2fsettings.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/__init__.py",
        "/app.js/",
        "/app.js%00.html",
        "//etc/passwd",
    ],
)
async def test_nothing_else_lies_under_the_page(path: str) -> None:
    async with serving() as rig:
        answer = await rig.fetch("GET", path)
        assert answer.status in (307, 404), answer.text[:100]
        assert "import" not in answer.text


async def test_no_key_is_no_key_whatever_is_accepted() -> None:
    keys = ApiKeys([""], ClientSecrets())  # settings refuse this; it must not open the door anyway
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Basic "}):
        with pytest.raises(Refusal):
            keys.enter(headers)
