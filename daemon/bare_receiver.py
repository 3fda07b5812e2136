"""One WebRTC receiver without a server, for `omnid bench network`.

Run as `python -m daemon.bare_receiver KIND`. KIND is `adaptive` or `aiortc`, as in the setting
`webrtc.audio_receiver`, or `wrtc`, a binding of libwebrtc whose interface resembles aiortc's; that
runs in an environment of its own, so nothing but it is imported there.

An SDP offer as one line of JSON on standard input, the answer as one on standard output, then a
record for each piece of sound: when it was there (monotonic seconds), its rate, how many samples,
and the samples (int16, mono). When standard input ends, a last record with rate 0 tells the seconds
of CPU that the process used since the first piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

RECORD = struct.Struct("<dII")


class _Ear:
    def __init__(self) -> None:
        self._cpu_before_s: float | None = None

    def hear(self, pcm: Any, rate_hz: int) -> None:
        """Record a piece. pcm: [num_samples] int16 or float32 in -1..1."""
        now_s = time.monotonic()
        if self._cpu_before_s is None:
            self._cpu_before_s = time.process_time()
        if pcm.dtype != np.int16:
            pcm = np.clip(pcm * 32768.0, -32768, 32767).astype(np.int16)
        _write(RECORD.pack(now_s, rate_hz, len(pcm)) + pcm.tobytes())

    def end(self) -> None:
        """Record what it cost."""
        used_s = time.process_time() - (self._cpu_before_s or 0.0)
        _write(RECORD.pack(used_s if self._cpu_before_s is not None else 0.0, 0, 0))


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


class _LibwebrtcSource:
    """What libwebrtc makes of the packets, in pieces of 10 ms by its own clock."""

    def __init__(self, track: Any) -> None:
        self._track = track

    async def run(self, deliver: Callable[[Any, int], None]) -> None:
        """See `daemon.audio_source.AudioSource`."""
        while True:
            frame = await self._track.recv()
            pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
            deliver(pcm, frame.sample_rate)


def _source(track: Any, receiver: Any, kind: str) -> Any:
    if kind == "wrtc":
        return _LibwebrtcSource(track)
    from daemon.audio_source import take_over

    chosen: Literal["adaptive", "aiortc"] = "adaptive" if kind == "adaptive" else "aiortc"
    return take_over(receiver, track, kind=chosen, on_counts=lambda _: None)


async def run(kind: str) -> None:
    """Answer one offer, and listen until standard input ends."""
    rtc: Any = importlib.import_module("webrtc.aiortc" if kind == "wrtc" else "aiortc")
    if kind == "wrtc":
        importlib.import_module("webrtc").allow_loopback()
    else:
        from daemon import ice, rtp

        ice.install("127.0.0.1")
        rtp.ask_for_repair()
    ear, sources = _Ear(), []
    peer = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=[]))

    def begin(track: Any) -> None:
        (receiver,) = (
            line.receiver for line in peer.getTransceivers() if line.receiver.track is track
        )
        sources.append(_source(track, receiver, kind))

    peer.on("track", begin)
    loop = asyncio.get_running_loop()
    offer = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    await peer.setRemoteDescription(rtc.RTCSessionDescription(sdp=offer["sdp"], type="offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    _write(json.dumps({"sdp": peer.localDescription.sdp}).encode() + b"\n")
    tasks = [loop.create_task(source.run(ear.hear), name="listen") for source in sources]
    await loop.run_in_executor(None, sys.stdin.read)
    ear.end()
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await peer.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
