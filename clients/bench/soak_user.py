"""A user of the soak: comes, speaks some turns, interrupts now and then, leaves or drops out."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping

from clients.bench.errors import BenchError
from clients.bench.measure import Pcm16
from clients.bench.peer import Event, Listener, Peer
from clients.bench.speech import Speech

CREATED_S = 20.0
REPLY_S = 30.0
TAKEN_S = 10.0  # longer than it lasts: so late may what is said be taken
HEARD_S = (0.2, 1.2)  # of the reply, before the user speaks over it
PAUSE_S = (0.2, 1.0)
MAX_TURNS = 4
INTERRUPTS = 0.3
DROPS = 0.25


class User:
    """One session after the other, until told to stop.

    Args:
        new_peer: by the name of a transport, "webrtc" or "ws".
        speeches: what to say, by the same name.
        counts: takes what happened.
    """

    def __init__(
        self,
        new_peer: Callable[[str], Peer],
        speeches: Mapping[str, Speech],
        *,
        counts: Counter[str],
        seed: int,
    ) -> None:
        self._new_peer = new_peer
        self._speeches = speeches
        self._counts = counts
        self._random = random.Random(seed)

    async def live(self, until_s: float) -> None:
        """Hold sessions until that moment of the loop's clock."""
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            transport = self._random.choice(sorted(self._speeches))
            try:
                await self._session(transport)
                self._counts[f"{transport} sessions"] += 1
            except (BenchError, TimeoutError) as error:
                self._counts[f"failed: {error or 'timeout'}"[:100]] += 1
                await asyncio.sleep(1.0)

    async def _session(self, transport: str) -> None:
        peer, speech = self._new_peer(transport), self._speeches[transport]
        ear = _Ear()
        try:
            await peer.open(Listener(on_event=ear.event, on_audio=ear.audio, on_closed=ear.lost))
            async with asyncio.timeout(CREATED_S):
                await ear.until(ear.created)
            for _ in range(self._random.randint(1, MAX_TURNS)):
                await self._turn(peer, speech, ear)
                await asyncio.sleep(self._random.uniform(*PAUSE_S))
        finally:
            if self._random.random() < DROPS:
                self._counts["drops"] += 1
                await peer.drop()
            else:
                await peer.close()

    async def _turn(self, peer: Peer, speech: Speech, ear: _Ear) -> None:
        ear.reset()
        await _say(peer, speech)
        async with asyncio.timeout(REPLY_S):
            await ear.until(ear.heard)
        if self._random.random() < INTERRUPTS:
            await asyncio.sleep(self._random.uniform(*HEARD_S))
            ear.reset()
            self._counts["interruptions"] += 1
            await _say(peer, speech)
        async with asyncio.timeout(REPLY_S):
            await ear.until(ear.done)
        self._counts["turns"] += 1


async def _say(peer: Peer, speech: Speech) -> None:
    """Say it to its end.

    Raises:
        TimeoutError: nobody takes the sound any more, as where the connection broke.
    """
    is_said = asyncio.Event()
    peer.microphone.say(speech, lambda _: is_said.set())
    async with asyncio.timeout(len(speech.pcm) / peer.microphone.rate_hz + TAKEN_S):
        await is_said.wait()
    # the recording's own silence, before which nothing else can be said
    await asyncio.sleep((len(speech.pcm) - speech.end) / peer.microphone.rate_hz + 0.1)


class _Ear:
    """What of the server's doing a user waits for."""

    def __init__(self) -> None:
        self.created = asyncio.Event()
        self.heard = asyncio.Event()
        self.done = asyncio.Event()
        self._loss: str | None = None

    async def until(self, event: asyncio.Event) -> None:
        """Wait for it.

        Raises:
            BenchError: the connection was lost first.
        """
        await event.wait()
        if self._loss is not None:
            raise BenchError(self._loss)

    def reset(self) -> None:
        """Before a turn."""
        self.heard.clear()
        self.done.clear()

    def event(self, event: Event) -> None:
        """See `Listener`."""
        match event.get("type"):
            case "session.created":
                self.created.set()
            case "response.output_audio_transcript.delta":
                self.heard.set()
            case "response.done":
                self.heard.set()
                self.done.set()

    def audio(self, pcm: Pcm16, rate_hz: int, at: float, missing_samples: int) -> None:
        """See `Listener`."""

    def lost(self, reason: str) -> None:
        """See `Listener`."""
        self._loss = self._loss or reason
        for event in (self.created, self.heard, self.done):
            event.set()
