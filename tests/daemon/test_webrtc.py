"""Calls of a real WebRTC peer: sound and pictures both ways, events, all the ways to end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import websockets
from aiortc import RTCConfiguration, RTCPeerConnection
from daemon_rig import serving, tone, until
from fake_engine import FakeResponse, Script
from openai import AsyncOpenAI
from rtc_client import RTP_HZ, calling
from test_sideband import address, next_of

from pipeline.messages import AudioDelta, ResponseEvent

SPEECH = tone(0.6, RTP_HZ)
LOUD = 500.0


@pytest.fixture
def _audible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted engine's speech is a tone, so that an ear can tell it from silence."""
    quiet = FakeResponse.__aiter__

    async def loud(self: FakeResponse) -> AsyncIterator[ResponseEvent]:
        async for event in quiet(self):
            if isinstance(event, AudioDelta):
                t = np.arange(len(event.pcm)) / 24_000
                pcm = (np.sin(2 * np.pi * 500 * t) * 10_000).astype(np.int16)
                event = replace(event, pcm=pcm)
            yield event

    monkeypatch.setattr(FakeResponse, "__aiter__", loud)


@pytest.mark.usefixtures("_audible")
async def test_two_spoken_turns_are_heard() -> None:
    async with serving() as rig, calling(rig) as client:
        for turn in (1, 2):
            client.microphone.say(SPEECH)
            await client.wait_for("output_audio_buffer.stopped", turn)
        kinds = client.kinds()
        assert kinds.count("response.done") == kinds.count("output_audio_buffer.started") == 2
        assert "response.output_audio.delta" not in kinds
        assert "response.output_audio.done" in kinds
        assert "output_audio_buffer.cleared" not in kinds
        assert not [kind for kind in kinds if kind.startswith("x.")]
        heard_s = sum(rms > LOUD for rms in client.loudness) * 0.02
        assert 1.2 <= heard_s <= 1.45, "two replies of 0.64 s"
        started = [e for e in client.events if e["type"].endswith("speech_started")]
        assert started[1]["audio_start_ms"] > started[0]["audio_start_ms"] + 1_000


async def test_an_event_of_ours_that_is_too_long_to_send_is_told_where_it_is_missing() -> None:
    script = Script(words=("x" * 3_000,))
    async with (
        serving(script, webrtc__max_event_bytes=2_000) as rig,
        calling(rig) as client,
        websockets.connect(address(rig, client.location)) as sideband,
    ):
        await next_of(sideband, "session.created")
        client.send(type="response.create", response={"output_modalities": ["text"]})
        await client.wait_for("rate_limits.updated")
        errors = [event["error"] for event in client.events if event["type"] == "error"]
        assert {(e["type"], e["code"]) for e in errors} == {("server_error", "event_too_long")}
        lost = ("output_text.done", "content_part.done")
        for error, kind in zip(errors, lost, strict=True):
            assert f"'response.{kind}'" in error["message"]
        deltas = [e["delta"] for e in client.events if e["type"] == "response.output_text.delta"]
        assert "".join(deltas) == "x" * 3_000
        (done,) = [event for event in client.events if event["type"] == "response.done"]
        assert done["response"]["status"] == "completed"
        (item,) = done["response"]["output"]
        (last,) = [e for e in client.events if e["type"] == "conversation.item.done"]
        assert (item["id"], item["content"]) == (last["item"]["id"], [])
        kinds = []
        while not kinds or kinds[-1] != "rate_limits.updated":
            kinds.append(json.loads(await sideband.recv())["type"])
        assert "error" not in kinds
        assert {"response.output_text.delta", "response.done"} <= set(kinds)


@pytest.mark.usefixtures("_audible")
async def test_speech_over_the_reply_silences_it() -> None:
    async with serving(Script(num_frames=100)) as rig, calling(rig) as client:
        client.microphone.say(SPEECH)
        await client.wait_for("output_audio_buffer.started")
        await until(lambda: sum(rms > LOUD for rms in client.loudness) > 20)
        client.microphone.say(SPEECH)
        truncated = await client.wait_for("conversation.item.truncated")
        assert "output_audio_buffer.cleared" in client.kinds()
        assert 300 < truncated["audio_end_ms"] < 3_000
        heard_ms = sum(rms > LOUD for rms in client.loudness) * 20
        assert abs(truncated["audio_end_ms"] - heard_ms) <= 100


async def test_the_camera_is_seen_by_those_who_asked_for_it() -> None:
    async with serving() as rig, calling(rig, query="?x-ext=1", has_camera=True) as client:
        assert "video" in client.events[0]["session"]["x_ext"]
        await until(lambda: rig.app.state.sessions and client.peer.connectionState == "connected")
        await until(lambda: _newest_frame(rig) is not None)
        red, green, blue = _newest_frame(rig).reshape(-1, 3).mean(axis=0)
        assert red > 180 > 60 > max(green, blue)
        client.microphone.say(SPEECH)
        await client.wait_for("response.done")
        assert "frames" in rig.engine.context.story[0]
        await client.wait_for("x.metrics")


def _newest_frame(rig):  # type: ignore[no-untyped-def]
    (live,) = rig.app.state.sessions._live.values()
    return live.session.conversation.camera.newest


async def test_a_stock_client_gets_no_video() -> None:
    async with serving() as rig, calling(rig, has_camera=True) as client:
        audio, video = (
            part for part in client.answer.split("m=") if part[:5] in ("audio", "video")
        )
        assert "a=sendrecv" in audio
        assert "a=msid:" in audio
        assert "a=candidate" in audio
        assert "a=inactive" in video or video.startswith("video 0 ")
        assert "127.0.0.1" in client.answer


async def test_hanging_up() -> None:
    async with serving() as rig, calling(rig) as client:
        assert (await rig.fetch("POST", f"{client.location}/hangup")).status == 200
        await until(lambda: rig.num_live == 0)
        assert rig.engine.context.is_closed
        answer = await rig.fetch("POST", f"{client.location}/hangup")
        assert (answer.status, answer.error["code"]) == (404, "call_id_not_found")


async def test_closing_the_peer_ends_the_work_at_once() -> None:
    async with serving(Script(holds_at=2)) as rig:
        async with calling(rig) as client:
            client.send(type="response.create")
            await until(lambda: rig.engine.responses)
        await until(lambda: rig.engine.response.is_cancelled and rig.num_live == 0, timeout_s=1)


async def test_the_call_goes_on_over_another_data_channel() -> None:
    async with serving() as rig, calling(rig) as client:
        client.channel.close()
        (live,) = rig.app.state.sessions._live.values()
        call = live.session._listeners[0].__self__
        await until(lambda: call._channel is None)
        live.session.refuse("told while nobody listens", "invalid_value")
        client.channel = client.peer.createDataChannel("oai-events")
        client.channel.on("message", lambda text: client.events.append(json.loads(text)))
        await until(lambda: client.channel.readyState == "open")
        error = (await client.wait_for("error"))["error"]
        assert error["message"] == "told while nobody listens"
        client.send(type="session.update", session={"type": "realtime"})
        await client.wait_for("session.updated")
        assert rig.num_live == 1


async def test_without_a_data_channel_the_call_ends_after_a_while() -> None:
    async with serving(webrtc__channel_grace_s=0.8) as rig, calling(rig) as client:
        client.channel.close()
        await asyncio.sleep(0.5)
        assert rig.num_live == 1
        await until(lambda: rig.num_live == 0, timeout_s=3)


async def test_a_peer_that_vanishes_ends_the_work_within_five_seconds() -> None:
    async with serving(Script(holds_at=2)) as rig, calling(rig) as client:
        client.send(type="response.create")
        await until(lambda: rig.engine.responses)
        client.vanish()
        await until(lambda: rig.engine.response.is_cancelled and rig.num_live == 0, timeout_s=5)


async def test_bad_events_on_the_channel() -> None:
    async with serving() as rig, calling(rig) as client:
        client.channel.send("nonsense")
        client.channel.send(b"\x00\xff")
        client.send(type="no.such")
        client.send(type="response.cancel", event_id="mine")
        client.send(type="output_audio_buffer.clear")
        await client.wait_for("error", 4)
        codes = [e["error"]["code"] for e in client.events if e["type"] == "error"]
        assert codes == [
            "invalid_json",
            "invalid_json",
            "invalid_value",
            "response_cancel_not_active",
        ]
        assert client.events[-1]["error"]["event_id"] == "mine"
        client.microphone.say(SPEECH)
        await client.wait_for("input_audio_buffer.speech_started")
        client.send(type="input_audio_buffer.append", audio="AAAA")
        assert (await client.wait_for("error", 5))["error"]["param"] == "type"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("hello", 400),
        ("v=0\r\n", 400),
        ("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 400),
        ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", 400),
        ("v=0\r\nm=audio x y z\r\na=rtpmap:\r\na=fingerprint:sha-1\r\n", 400),
        ("v=0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" * 1_000, 400),
        ("v=0\r\nm=audio 9\0 UDP/TLS/RTP/SAVPF 111\r\n", 400),
        (b"\xff\xfe", 400),
        ("v=0\r\n" + "a=x\r\n" * 200_000, 413),
    ],
)
async def test_bad_offers_are_refused(body: str | bytes, status: int) -> None:
    async with serving(session__max_sessions=1) as rig:
        for _ in range(2):  # twice: the first one must have given its place back
            answer = await rig.fetch("POST", "/v1/realtime/calls", body, type="application/sdp")
            assert answer.status == status, answer.text
            assert "Traceback" not in answer.text
            assert answer.error["code"] == "invalid_offer"
        assert rig.num_live == 0


async def test_a_form_with_a_session() -> None:
    def form(session: str) -> bytes:
        parts = {"sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "session": session}
        lines = [
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in parts.items()
        ]
        return ("".join(lines) + "--b--\r\n").encode()

    async with serving() as rig:
        for session, param in [
            ("nonsense", "session"),
            ("{}", "session.type"),
            (json.dumps({"type": "realtime", "tools": [{}]}), "session.tools[0].type"),
            (
                json.dumps({"type": "realtime", "audio": {"output": {"voice": "x"}}}),
                "session.audio.output.voice",
            ),
            (json.dumps({"type": "realtime", "model": "m"}), "sdp"),
        ]:
            answer = await rig.fetch(
                "POST", "/v1/realtime/calls", form(session), type="multipart/form-data; boundary=b"
            )
            assert (answer.status, answer.error["param"]) == (400, param)


async def test_the_sdk_places_a_call_and_hangs_up() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("audio", direction="sendrecv")
    offer = (await peer.createOffer()).sdp
    async with serving() as rig:
        sdk = AsyncOpenAI(api_key="sk-dummy", base_url=f"{rig.http}/v1", max_retries=0)
        answer = await sdk.realtime.calls.create(
            sdp=offer, session={"type": "realtime", "audio": {"output": {"voice": "Chelsie"}}}
        )
        assert answer.text.startswith("v=0")
        call_id = answer.response.headers["location"].rsplit("/", 1)[1]
        await until(lambda: rig.engine.contexts)
        assert rig.engine.context.voice == "Chelsie"
        await sdk.realtime.calls.hangup(call_id)
        await until(lambda: rig.num_live == 0)
        plain = await sdk.realtime.calls.create(sdp=offer)
        assert plain.response.status_code == 201
        await sdk.close()
    await peer.close()
