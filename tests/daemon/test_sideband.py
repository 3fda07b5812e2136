"""A second channel to a call: hears what the client hears, may say what the client may."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving, until
from rtc_client import calling


def address(rig: Rig, location: str) -> str:
    call_id = location.rsplit("/", 1)[1]
    return f"ws://127.0.0.1:{rig.port}/v1/realtime?call_id={call_id}"


async def next_of(socket: Any, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(await socket.recv())
        if event["type"] == kind:
            return event


async def test_both_channels_hear_and_command_the_session() -> None:
    async with serving() as rig, calling(rig) as client:
        async with websockets.connect(address(rig, client.location)) as socket:
            created = await next_of(socket, "session.created")
            assert created["session"]["id"] == client.events[0]["session"]["id"]
            update = {"type": "realtime", "instructions": "Be brief."}
            await socket.send(json.dumps({"type": "session.update", "session": update}))
            assert (await next_of(socket, "session.updated"))["session"]["instructions"]
            heard = await client.wait_for("session.updated")
            assert heard["session"]["instructions"] == "Be brief."
            client.send(type="response.create", response={"output_modalities": ["text"]})
            done = await next_of(socket, "response.done")
            assert done["response"]["status"] == "completed"
            assert (await client.wait_for("response.done"))["response"] == done["response"]
            await socket.send('{"type": "response.cancel", "event_id": "mine"}')
            assert (await next_of(socket, "error"))["error"]["event_id"] == "mine"
            assert "error" not in client.kinds()
        client.send(type="session.update", session={"type": "realtime", "instructions": "On."})
        await client.wait_for("session.updated", count=2)
        assert rig.num_live == 1


async def test_another_key_can_neither_attach_nor_hang_up() -> None:
    mine, other = ({"authorization": f"Bearer {key}"} for key in ("key-one", "key-two"))
    secret = '{"session": {"type": "realtime"}}'
    async with serving(server__api_keys=["key-one", "key-two"]) as rig:
        made = await rig.fetch("POST", "/v1/realtime/client_secrets", secret, **mine)
        ephemeral = f"Bearer {json.loads(made.text)['value']}"
        async with calling(rig, authorization=ephemeral) as client:
            call = address(rig, client.location)
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(call, additional_headers=other)
            assert caught.value.response.status_code == 404
            answer = await rig.fetch("POST", f"{client.location}/hangup", **other)
            assert (answer.status, answer.error["code"]) == (404, "call_id_not_found")
            assert rig.num_live == 1
            async with websockets.connect(call, additional_headers=mine) as socket:
                await next_of(socket, "session.created")
            answer = await rig.fetch("POST", f"{client.location}/hangup", **mine)
            assert answer.status == 200, "the key of whom the ephemeral one is"
            await until(lambda: rig.num_live == 0)


async def test_ends_with_the_call() -> None:
    async with serving() as rig, calling(rig) as client:
        async with websockets.connect(address(rig, client.location)) as socket:
            await next_of(socket, "session.created")
            assert (await rig.fetch("POST", f"{client.location}/hangup")).status == 200
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await next_of(socket, "anything else")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1000
        await until(lambda: rig.num_live == 0)


async def test_there_are_not_too_many_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.websocket.MAX_SIDEBANDS", 2)
    async with serving() as rig, calling(rig) as client:
        where = address(rig, client.location)
        async with websockets.connect(where) as first, websockets.connect(where) as second:
            for socket in (first, second):
                await next_of(socket, "session.created")
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(where)
            assert refused.value.response.status_code == 429
            assert "retry-after" in refused.value.response.headers
        (live,) = rig.app.state.sessions._live.values()
        await until(lambda: live.session.num_joined == 0)
        async with websockets.connect(where) as again:
            await next_of(again, "session.created")


async def test_they_count_for_the_requests_of_their_key() -> None:
    async with serving(limits__requests_per_minute=2) as rig, calling(rig) as client:
        where = address(rig, client.location)
        async with websockets.connect(where) as first:
            await next_of(first, "session.created")
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(where)
            assert refused.value.response.status_code == 429
