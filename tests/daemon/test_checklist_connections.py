"""The conformance checklist of the protocol, rows 15 to 20: connections, keys, calls, limits."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving, tone, until
from fake_engine import Script
from rtc_client import RTP_HZ, calling
from websockets.exceptions import ConnectionClosed, InvalidStatus
from wire_client import TURN, audio_bytes, wire

from daemon import client_secrets


async def mint(rig: Rig, **request: Any) -> tuple[int, dict[str, Any]]:
    answer = await rig.fetch(
        "POST", "/v1/realtime/client_secrets", json.dumps(request), type="application/json"
    )
    return answer.status, json.loads(answer.text)


async def test_row_15_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default and extreme lifetimes; expiry stops new connections and nothing that runs."""
    now_s = 1_000_000.0
    monkeypatch.setattr(
        client_secrets.ClientSecrets.__init__, "__kwdefaults__", {"now_s": lambda: now_s}
    )
    async with serving() as rig:
        _, secret = await mint(rig)
        assert secret["value"].startswith("ek_")
        assert secret["expires_at"] == now_s + 600
        for seconds, status in ((10, 200), (7_200, 200), (9, 400), (7_201, 400)):
            found, answer = await mint(
                rig, expires_after={"anchor": "created_at", "seconds": seconds}
            )
            assert found == status, seconds
            assert status == 400 or answer["expires_at"] == now_s + seconds
        headers = {"Authorization": f"Bearer {secret['value']}"}
        async with wire(rig, additional_headers=headers) as client:
            now_s += 601
            with pytest.raises(InvalidStatus) as refused:
                async with websockets.connect(rig.ws, additional_headers=headers):
                    pass
            assert refused.value.response.status_code == 401
            await client.check_open()


async def test_row_16_a_call() -> None:
    """An offer without candidates, 201 and Location, played or cut but never both, hanging up, a
    sideband that sees both directions, and no such call. (Where a cut reply is truncated is held
    against what the peer received in `test_webrtc`.)
    """
    async with serving(Script(num_frames=5)) as rig, calling(rig) as client:
        assert client.location.rsplit("/", 1)[0] == "/v1/realtime/calls"
        call_id = client.location.rsplit("/", 1)[1]
        address = f"ws://127.0.0.1:{rig.port}/v1/realtime?call_id="
        async with websockets.connect(address + call_id) as sideband:
            assert json.loads(await sideband.recv())["type"] == "session.created"
            client.microphone.say(tone(0.6, RTP_HZ))
            await client.wait_for("output_audio_buffer.stopped")
            rig.engine.script = Script(num_frames=100, holds_at=50)
            client.send(type="response.create")
            await client.wait_for("output_audio_buffer.started", 2)
            client.send(type="response.cancel")
            client.send(type="output_audio_buffer.clear")
            await client.wait_for("output_audio_buffer.cleared")
            client.send(type="output_audio_buffer.clear")  # nothing plays: no event, no error
            await sideband.send('{"type": "session.update", "session": {"type": "realtime"}}')
            await client.wait_for("session.updated")
            seen = [json.loads(await sideband.recv()) for _ in client.events[1:]]
            assert [e["event_id"] for e in seen] == [e["event_id"] for e in client.events[1:]]
        fates: dict[str, list[str]] = {}
        for event in client.events:
            if event["type"].startswith("output_audio_buffer."):
                fates.setdefault(event["response_id"], []).append(event["type"].split(".")[1])
        assert sorted(fates.values()) == [["started", "cleared"], ["started", "stopped"]]
        assert "error" not in client.kinds()
        assert (await rig.fetch("POST", f"{client.location}/hangup")).status == 200
        await until(lambda: rig.num_live == 0)
        with pytest.raises(InvalidStatus) as refused:
            async with websockets.connect(address + call_id):
                pass
        assert refused.value.response.status_code == 404


async def test_row_17_keys() -> None:
    """401 before the upgrade; a key among the subprotocols is taken and `realtime` is selected."""
    async with serving(server__api_keys=["sk-right"]) as rig:
        for options in ({}, {"additional_headers": {"Authorization": "Bearer sk-wrong"}}):
            with pytest.raises(InvalidStatus) as refused:
                async with websockets.connect(rig.ws, **options):  # type: ignore[arg-type]
                    pass
            assert refused.value.response.status_code == 401
            body = json.loads(refused.value.response.body)
            assert body["error"]["code"] == "invalid_api_key"
        offered: Any = ["realtime", "openai-insecure-api-key.sk-right", "openai-agents-sdk.0.1"]
        async with websockets.connect(rig.ws, subprotocols=offered) as socket:
            assert socket.subprotocol == "realtime"
            assert json.loads(await socket.recv())["type"] == "session.created"


async def test_row_18_expiry() -> None:
    """The error first, then 1001 with the same words; also while a reply is made."""
    async with serving(Script(holds_at=2), session__max_duration_s=1) as rig, wire(rig) as client:
        expires_at = client.events[0]["session"]["expires_at"]
        assert abs(expires_at - time.time() - 1) < 2
        await client.send("response.create")
        error = await client.error()
        assert error["code"] == "session_expired"
        with pytest.raises(ConnectionClosed):
            await client.until("never")
        assert (client.socket.close_code, client.socket.close_reason) == (1001, error["message"])


async def test_row_19_bytes() -> None:
    """Odd pieces are joined; 15 MiB are taken and 16 MiB refused, and the session stays open.
    (Every format both ways: `test_audio_formats`.)
    """
    async with serving() as rig, wire(rig) as client:
        await client.update(audio={"input": {"turn_detection": None}})
        pcm = tone(0.5)
        for start in range(0, len(pcm), 777):
            await client.append(pcm[start : start + 777])
        await client.send("input_audio_buffer.commit")
        item_id = (await client.until("conversation.item.done"))[-1]["item"]["id"]
        await client.send("conversation.item.retrieve", item_id=item_id)
        (retrieved,) = await client.until("conversation.item.retrieved")
        sound = base64.b64decode(retrieved["item"]["content"][0]["audio"])
        assert abs(len(sound) - len(pcm)) < 200
        await client.append(bytes(15 << 20))
        await client.check_open()
        await client.append(bytes(16 << 20))
        assert (await client.error())["param"] == "audio"
        await client.check_open()


async def test_row_20_a_client_that_does_not_read_stalls_nobody() -> None:
    """Its queue is bounded and it is closed; meanwhile another one converses."""
    async with (
        serving(limits__max_outbox_bytes=100_000) as rig,
        wire(rig, max_queue=None) as slow,
        wire(rig) as other,
    ):
        slow.socket.transport.pause_reading()
        flood = json.dumps({"type": "x" * 70, "event_id": "e" * 500})

        async def pour() -> None:
            while rig.num_live > 1:
                await slow.socket.send(flood)

        async with asyncio.TaskGroup() as group:
            group.create_task(pour())
            await other.append(TURN)
            seen = await other.until("rate_limits.updated")
            assert audio_bytes(seen) == 8 * 80 * 48
            await until(lambda: rig.num_live == 1, timeout_s=20)
        await asyncio.sleep(1.2)  # as long as it reads on at all, it is told
        slow.socket.transport.resume_reading()
        await slow.socket.wait_closed()
        assert slow.socket.close_code == 1013
        assert slow.socket.close_reason == "The client does not read fast enough."
        await other.check_open()
