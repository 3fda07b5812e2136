"""Keeps an engine running: starts it, tells its state, starts it again when it dies.

What an engine lost (contexts, responses under way) is not restored here: `EngineClient` fails it,
and each session rebuilds its own context. A checkpoint that can not be loaded is a state, not a
crash loop: before the first success a told reason ends the attempts at once, silent crashes after a
few.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.channels import Channel, ProcessChannel, ThreadChannel
from pipeline.engine_client import EngineClient, Link
from pipeline.messages import EngineReady
from pipeline.worker import WorkerOptions

logger = logging.getLogger(__name__)

EngineState = Literal["loading", "ready", "failed"]
EngineMode = Literal["process", "thread"]
ChannelFactory = Callable[[WorkerOptions], Channel]

_CHANNELS: Final[dict[EngineMode, ChannelFactory]] = {
    "process": ProcessChannel,
    "thread": ThreadChannel,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Waits before a restart double from `first_s` to `longest_s`; a life of `longest_s` resets
    them.

    `max_first_loads`: silent crashes in a row that are accepted before an engine was ever ready.
    """

    first_s: float = 0.2
    longest_s: float = 10.0
    max_first_loads: int = 5


class EngineSupervisor:
    """Owner of the engine of a daemon. `start` and `aclose` on one running event loop."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        mode: EngineMode = "process",
        policy: RestartPolicy = RestartPolicy(),
    ) -> None:
        self._options = options
        self._new_channel = _CHANNELS[mode]
        self._policy = policy
        self._client: EngineClient | None = None
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._error: str | None = None
        self._is_final = False
        self._was_ready = False
        self._num_restarts = 0

    # ------------------------------------------------------------------ what it is
    @property
    def engine(self) -> EngineClient:
        """The engine port; after `start`."""
        assert self._client is not None, "start() first"
        return self._client

    @property
    def state(self) -> EngineState:
        """ "failed" is final; between a crash and the next `ready` it is "loading"."""
        if self._is_final:
            return "failed"
        return "ready" if self.info is not None else "loading"

    @property
    def error(self) -> str | None:
        """Why the engine failed, or why its last life ended."""
        return self._error

    @property
    def info(self) -> EngineReady | None:
        """What the engine serves, while it is ready."""
        return self._client.info if self._client else None

    @property
    def num_restarts(self) -> int:
        """How often an engine was started again."""
        return self._num_restarts

    @property
    def pid(self) -> int | None:
        """Process of the engine, where it has one of its own."""
        return self._channel.pid if isinstance(self._channel, ProcessChannel) else None

    # ------------------------------------------------------------------ life
    async def start(self) -> None:
        """Begin to load the engine; returns at once (`engine.ready()` waits for it)."""
        assert self._task is None, "start() once"
        self._client = EngineClient()
        self._task = asyncio.create_task(self._run(), name="engine-supervisor")

    async def aclose(self) -> None:
        """Stop the engine and wait until nothing of it is left. Idempotent."""
        self._closing.set()
        if self._channel is not None:
            self._channel.close()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        wait_s = self._policy.first_s
        num_silent_crashes = 0
        while not self._closing.is_set():
            link = await self._live()
            if self._closing.is_set():
                break
            logger.error("engine: %s", self._error)
            num_silent_crashes += 1
            if self._is_hopeless(link, num_silent_crashes):
                self._is_final = True
                break
            wait_s = self._policy.first_s if self._lived_long(link) else wait_s
            await self._wait(wait_s)
            wait_s = min(2 * wait_s, self._policy.longest_s)
            self._num_restarts += not self._closing.is_set()
        self.engine.give_up(self._error or "the engine was stopped")

    async def _live(self) -> Link:
        """One life of an engine, from its start to its end."""
        self._channel = self._new_channel(self._options)
        link = self.engine.attach(self._channel)
        try:
            failed = await asyncio.shield(link.lost)
        finally:
            if not link.lost.done():  # cancelled: the loop is going down
                self._channel.close()
        self._channel.join()
        self._was_ready = self._was_ready or link.info is not None
        if not self._closing.is_set():
            self._error = failed.error
        return link

    def _is_hopeless(self, link: Link, num_silent_crashes: int) -> bool:
        if self._was_ready:
            return False
        is_told = not link.lost.result().can_retry
        return is_told or num_silent_crashes >= self._policy.max_first_loads

    def _lived_long(self, link: Link) -> bool:
        if link.ready_at_s is None:
            return False
        return asyncio.get_running_loop().time() - link.ready_at_s > self._policy.longest_s

    async def _wait(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()
