"""Calls for a user that lives in another process: run as `python -m clients.bench.call`.

Lines of JSON both ways. The first one in says where the server is ("url"; null: one is started that
serves "model"), then for each call one that opens it: "network" (a name of `impairment.NETWORKS`),
"seed", "camera", and "session", which is sent as `session.update`. During the call "do" is one of

- "say": "pcm", base64, the next 20 ms of microphone at 48 kHz;
- "send": "event", a client event;
- "calm": from now on the network is clean;
- "end": hang up.

Out come lines whose "told" is "ready" ("server"; "networks": the names that there are), "open",
"tick" (20 ms of what was said have gone out), "audible" (20 ms of the agent that are not silent
came), "event" ("at_s": when it came), "failed" ("reason"), and at the end "heard": "pcm" (48 kHz,
from the first sample that was said, as `clients.bench.ear` has it), "began_s", "num_breaks",
"missing_share", "late_s" (how late the microphone was at worst: what this machine did to the call)
and "picture_age_s", the mean that the server tells of the call, null where it tells none.

Moments are those of the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from clients.bench.address import Address, ask_health, parse_address, request
from clients.bench.camera import FRAMES_PER_S
from clients.bench.ear import Ear
from clients.bench.errors import BenchError
from clients.bench.footprint import gauge
from clients.bench.impairment import NETWORKS
from clients.bench.measure import Pcm16
from clients.bench.microphone import BLOCK_S, Microphone
from clients.bench.own_server import own_server
from clients.bench.peer import Event, Listener
from clients.bench.webrtc_peer import RATE_HZ, WebRtcPeer

MAX_LINE_BYTES = 2**24
SESSION_TIMEOUT_S = 20.0
SETTLE_S = 1.0  # what connecting costs shall not be in the way of what is said
AUDIBLE = 10 ** (-45 / 20) * 32768  # root mean square
CAMERA_SIZE = 240, 320


class FedMicrophone(Microphone):
    """Says the blocks that it is given, in real time; silence before the first one."""

    def __init__(self, rate_hz: int) -> None:
        super().__init__(rate_hz)
        self.began_s: float | None = None
        self.num_said = 0
        self.late_s = 0.0
        self._blocks: asyncio.Queue[Pcm16] = asyncio.Queue()

    def feed(self, pcm: Pcm16) -> None:
        """The next 20 ms."""
        self._blocks.put_nowait(pcm)

    async def next_block(self) -> Pcm16:
        """See `Microphone`. A block that is given too late is late."""
        silence = await super().next_block()
        if self.began_s is None and self._blocks.empty():
            return silence
        pcm = await self._blocks.get()
        if self.began_s is None:
            self.began_s = time.monotonic() - BLOCK_S
        self.num_said += 1
        due_s = self.began_s + self.num_said * BLOCK_S
        self.late_s = max(self.late_s, time.monotonic() - due_s)
        _tell("tick")
        return pcm


@dataclass(slots=True)
class Call:
    """One call, and what is told of it."""

    ear: Ear = field(default_factory=Ear)
    microphone: FedMicrophone = field(default_factory=lambda: FedMicrophone(RATE_HZ))
    created: asyncio.Event = field(default_factory=asyncio.Event)
    updated: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def on_event(self, event: Event) -> None:
        """Pass it on."""
        if event.get("type") == "session.created":
            self.created.set()
        elif event.get("type") == "session.updated":
            self.updated.set()
        _tell("event", at_s=time.monotonic(), event=event)

    def on_audio(self, pcm: Pcm16, rate_hz: int, at: float, missing_samples: int) -> None:
        """Tell when the agent is to be heard."""
        if float(np.sqrt(np.mean(np.square(pcm.astype(np.float64))))) > AUDIBLE:
            _tell("audible")

    def on_closed(self, reason: str) -> None:
        """Nothing more will come; that we hung up is no failure."""
        if not self.is_over:
            _tell("failed", reason=reason)

    async def begin(self, peer: WebRtcPeer, session: Mapping[str, Any]) -> None:
        """Connect, and wait for the session to be as wanted."""
        listener = Listener(
            on_event=self.on_event,
            on_audio=self.on_audio,
            on_closed=self.on_closed,
        )
        await peer.open(listener)
        try:
            async with asyncio.timeout(SESSION_TIMEOUT_S):
                await self.created.wait()
                await peer.send({"type": "session.update", "session": session})
                await self.updated.wait()
        except TimeoutError as error:
            raise BenchError("the server did not open the session") from error
        await asyncio.sleep(SETTLE_S)
        _tell("open")

    async def obey(self, peer: WebRtcPeer, orders: asyncio.StreamReader) -> None:
        """Until the call is to end."""
        while line := await orders.readline():
            order = json.loads(line)
            match order["do"]:
                case "say":
                    data = base64.b64decode(order["pcm"])
                    self.microphone.feed(np.frombuffer(data, np.int16))
                case "send":
                    await peer.send(order["event"])
                case "calm":
                    peer.calm()
                case "end":
                    return


async def _hold(address: Address, order: Mapping[str, Any], orders: asyncio.StreamReader) -> None:
    call = Call()
    before = await _pictures(address)
    peer = WebRtcPeer(
        address,
        _moving_frames() if order["camera"] else None,
        network=NETWORKS[order["network"]],
        seed=order["seed"],
        microphone=call.microphone,
        on_packet=call.ear.take,
    )
    try:
        await call.begin(peer, order["session"])
        await call.obey(peer, orders)
    finally:
        call.is_over = True
        await peer.close()
    age_s, count = (now - then for now, then in zip(await _pictures(address), before, strict=True))
    began_s = call.microphone.began_s or time.monotonic()
    heard = call.ear.heard(began_s, began_s + call.microphone.num_said * BLOCK_S)
    _tell(
        "heard",
        began_s=began_s,
        pcm=base64.b64encode(heard.pcm.tobytes()).decode(),
        num_breaks=heard.num_breaks,
        missing_share=round(heard.missing_share, 4),
        late_s=round(call.microphone.late_s, 3),
        picture_age_s=age_s / count if count else None,
    )


async def _pictures(address: Address) -> tuple[float, float]:
    """The ages of all pictures that speech took so far, added up, and how many they were."""
    with contextlib.suppress(BenchError):
        told = (await request(address, address.metrics_url)).body
        name = "omnid_camera_frame_age_seconds"
        return gauge(told, f"{name}_sum"), gauge(told, f"{name}_count")
    return 0.0, 0.0


def _moving_frames() -> list[VideoFrame]:
    """Two seconds of a bright square that crosses a grey picture."""
    frames = []
    for number in range(2 * FRAMES_PER_S):
        picture = np.full((*CAMERA_SIZE, 3), 90, np.uint8)
        left = number * (CAMERA_SIZE[1] - 80) // (2 * FRAMES_PER_S)
        picture[80:160, left : left + 80] = (230, 200, 30)
        frames.append(VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
    return frames


@contextlib.asynccontextmanager
async def _server(where: Mapping[str, Any]) -> AsyncIterator[Address]:
    if where["url"] is None:
        async with own_server(where["model"]) as (_, address):
            yield address
    else:
        yield parse_address(
            where["url"], model="omnid", api_key=where["api_key"], is_insecure=where["insecure"]
        )


async def serve() -> None:
    """Hold calls until standard input ends."""
    orders = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    try:
        async with _server(json.loads(await orders.readline())) as address:
            _tell("ready", server=await ask_health(address), networks=list(NETWORKS))
            while line := await orders.readline():
                await _hold(address, json.loads(line), orders)
    except BenchError as error:
        _tell("failed", reason=str(error))


def _tell(told: str, **more: Any) -> None:
    data = json.dumps({"told": told, **more}).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    asyncio.run(serve())
