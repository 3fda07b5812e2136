"""Ephemeral keys: what they carry, how long they live, and what they do not open."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving
from openai import AsyncOpenAI
from test_sdk_conversation import collect

from daemon.auth import Refusal
from daemon.client_secrets import ClientSecrets, ExpiresAfter, SecretRequest
from daemon.protocol import SessionPatch

KEY = "sk-test"
PATH = "/v1/realtime/client_secrets"


def client(rig: Rig, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=key, base_url=f"{rig.http}/v1", max_retries=0)


async def test_a_secret_carries_its_session() -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        async with client(rig, KEY) as sdk:
            made = await sdk.realtime.client_secrets.create(
                session={
                    "type": "realtime",
                    "instructions": "Be a pirate.",
                    "audio": {"output": {"voice": "Chelsie"}},
                }
            )
        assert made.value.startswith("ek_")
        assert made.session.instructions == "Be a pirate."
        for _ in range(2):
            async with client(rig, made.value).realtime.connect(model="m") as connection:
                (created,) = await collect(connection, "session.created")
                assert created["session"]["instructions"] == "Be a pirate."
                assert created["session"]["audio"]["output"]["voice"] == "Chelsie"
                await connection.session.update(
                    session={"type": "realtime", "instructions": "No longer."}
                )
                (updated,) = await collect(connection, "session.updated")
                assert updated["session"]["instructions"] == "No longer."


async def test_a_session_is_called_as_its_client_calls_it() -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        named = await mint(rig, session={"type": "realtime", "model": "mine"})
        for secret, query, shown in (
            (named, "", "mine"),
            (named, "?model=", "mine"),
            (named, "?model=other", "other"),
            (KEY, "", "fake-omni"),
            (KEY, "?model=other&x-ext=1", "other"),
        ):
            url = f"ws://127.0.0.1:{rig.port}/v1/realtime{query}"
            bearer = {"Authorization": f"Bearer {secret}"}
            async with websockets.connect(url, additional_headers=bearer) as socket:
                assert json.loads(await socket.recv())["session"]["model"] == shown
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(f"{rig.ws}{257 * 'm'}", additional_headers=bearer)
        assert caught.value.response.status_code == 400


async def test_browsers_give_it_as_a_subprotocol() -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        secret = await mint(rig)
        offered = ["realtime", f"openai-insecure-api-key.{secret}"]
        async with websockets.connect(rig.ws, subprotocols=offered) as socket:  # type: ignore
            assert socket.subprotocol == "realtime"


async def test_a_secret_opens_nothing_but_sessions() -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        bearer = f"Bearer {await mint(rig)}"
        for method, path in (("POST", PATH), ("GET", "/v1/models"), ("GET", "/metrics")):
            assert (await rig.fetch(method, path, authorization=bearer)).status == 401
        assert (await rig.fetch("POST", PATH, authorization="Bearer ek_made-up")).status == 401


async def mint(rig: Rig, **request: Any) -> str:
    answer = await rig.fetch("POST", PATH, json.dumps(request), authorization=f"Bearer {KEY}")
    assert answer.status == 200, answer.text
    return str(json.loads(answer.text)["value"])


@pytest.mark.parametrize(
    ("kind", "path", "param"),
    [
        ("transcription", "/api-ws/v1/realtime", "session.type"),
        ("realtime", "/v1/realtime?intent=transcription", "intent"),
        ("realtime", "/v1/realtime?intent=transcription&x-ext=1", "intent"),
    ],
)
async def test_a_secret_for_another_kind_of_session_is_refused_before_the_upgrade(
    kind: str, path: str, param: str
) -> None:
    async with serving(server__api_keys=[KEY]) as rig:
        bearer = {"Authorization": f"Bearer {await mint(rig, session={'type': kind})}"}
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(f"ws://127.0.0.1:{rig.port}{path}", additional_headers=bearer)
        assert caught.value.response.status_code == 400
        assert caught.value.response.body is not None
        assert json.loads(caught.value.response.body)["error"]["param"] == param
        assert not rig.app.state.sessions.places._num_of, "its place is free again"


@pytest.mark.parametrize(
    ("request_body", "code", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "integer_below_min_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "integer_above_max_value", "expires_after.seconds"),
        ({"expires": 1}, "unknown_parameter", "expires"),
        ({"session": {"type": "realtime", "voice": "x"}}, "unknown_parameter", "session.voice"),
        (
            {"session": {"type": "realtime", "audio": {"output": {"voice": "nobody"}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
    ],
)
async def test_bad_requests_are_named(request_body: Any, code: str, param: str) -> None:
    async with serving() as rig:
        answer = await rig.fetch("POST", PATH, json.dumps(request_body))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
        assert (await rig.fetch("POST", PATH, "{")).error["code"] == "invalid_json"
        answer = await rig.fetch("POST", PATH, "[]")
        assert (answer.error["code"], answer.error["param"]) == ("invalid_value", None)
        assert answer.error["message"] == "Invalid value: should be an object."


def test_expiry_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    secrets = ClientSecrets(now_s=lambda: now_s)
    made = secrets.mint(SecretRequest(expires_after=ExpiresAfter(seconds=10)))
    assert made.expires_at == 1010
    assert secrets.grant(made.value) is not None
    assert secrets.grant(made.value + "x") is None
    monkeypatch.setattr("daemon.client_secrets.MAX_SECRETS", 1)
    with pytest.raises(Refusal):
        secrets.mint(SecretRequest())
    now_s = 1010.0
    assert secrets.grant(made.value) is None
    assert made.value not in repr(vars(secrets))
    assert secrets.mint(SecretRequest()).expires_at == 1610


def test_no_owner_takes_the_room_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_SECRETS_OF_OWNER", 2), ("MAX_BYTES_OF_OWNER", 1_500)):
        monkeypatch.setattr(f"daemon.client_secrets.{name}", value)
    monkeypatch.setattr("daemon.client_secrets.MAX_BYTES", 2_500)
    secrets = ClientSecrets(now_s=lambda: 1000.0)
    large = SecretRequest(session=SessionPatch(type="realtime", instructions="x" * 1_000))
    for owner in ("a", "b"):
        secrets.mint(large, owner=owner)
        with pytest.raises(Refusal) as refused:
            secrets.mint(large, owner=owner)
        assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "10"})
        secrets.mint(SecretRequest(), owner=owner)
        with pytest.raises(Refusal) as refused:
            secrets.mint(SecretRequest(), owner=owner)
        assert refused.value.status == 429
    with pytest.raises(Refusal) as refused:
        secrets.mint(large, owner="c")
    assert refused.value.status == 503
    secrets.mint(SecretRequest(), owner="c")
