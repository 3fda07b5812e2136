"""The supervisor: states, restarts with growing waits, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.supervisor import EngineMode, EngineSupervisor, RestartPolicy
from pipeline.errors import EngineLostError
from pipeline.messages import Message, ResponseEnded, ResponseOptions, TextPart
from pipeline.worker import WorkerOptions

CORE = Path(__file__).parents[1] / "pipeline" / "scripted_core.py"
QUICK = RestartPolicy(first_s=0.01, longest_s=0.04, max_first_loads=3)
MODES = pytest.mark.parametrize("mode", ["thread", "process"])


def options(factory: str = "make_core") -> WorkerOptions:
    return WorkerOptions(model="scripted", cache_folder="", core=f"{CORE}:{factory}")


def resources() -> tuple[set[str], int, list[str]]:
    """Threads, descriptors and child processes of this process."""
    threads = {thread.name for thread in threading.enumerate()}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return threads, sum(1 for _ in Path("/proc/self/fd").iterdir()), children


async def last_of(response: object) -> ResponseEnded:
    events = [event async for event in response]  # type: ignore[attr-defined]
    assert isinstance(events[-1], ResponseEnded)
    return events[-1]


async def reply(supervisor: EngineSupervisor, word: str = "hello") -> ResponseEnded:
    context = supervisor.engine.open(instructions="frames=2", voice=None)
    context.append_message(Message(role="user", parts=(TextPart(text=word),)))
    return await last_of(context.respond(ResponseOptions()))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - states have no event to wait for
            await asyncio.sleep(0.005)


@MODES
async def test_states_and_an_end_that_leaves_nothing(mode: EngineMode) -> None:
    before = resources()
    supervisor = EngineSupervisor(options(), mode=mode)
    assert supervisor.state == "loading"
    await supervisor.start()
    assert supervisor.state == "loading"
    async with asyncio.timeout(10):
        ready = await supervisor.engine.ready()
    assert supervisor.state == "ready"
    assert supervisor.info == ready
    assert ready.checkpoint == "scripted"
    assert (await reply(supervisor)).status == "completed"
    assert supervisor.error is None
    await supervisor.aclose()
    await supervisor.aclose()
    assert resources() == before
    assert supervisor.num_restarts == 0
    with pytest.raises(EngineLostError):
        await supervisor.engine.ready()


async def test_a_killed_engine_comes_back_and_new_contexts_work() -> None:
    supervisor = EngineSupervisor(options(), policy=QUICK)
    await supervisor.start()
    try:
        await supervisor.engine.ready()
        first_pid = supervisor.pid
        context = supervisor.engine.open(instructions="frames=1000000 step_ms=5", voice=None)
        response = context.respond(ResponseOptions())
        await anext(response)
        assert first_pid is not None
        killed_s = time.monotonic()
        os.kill(first_pid, signal.SIGKILL)
        last = await last_of(response)
        assert time.monotonic() - killed_s < 1
        assert last.status == "failed"
        assert supervisor.state == "loading"
        await supervisor.engine.ready()
        assert supervisor.error == "the engine process was killed by SIGKILL"
        assert not context.is_alive
        assert (await reply(supervisor)).status == "completed"
        assert supervisor.pid not in (None, first_pid)
        assert supervisor.num_restarts == 1
    finally:
        await supervisor.aclose()


@MODES
async def test_an_engine_that_failed_comes_back(mode: EngineMode) -> None:
    supervisor = EngineSupervisor(options(), mode=mode, policy=QUICK)
    await supervisor.start()
    for num_failures in range(1, 4):
        await supervisor.engine.ready()
        assert (await reply(supervisor, "crash-step")).status == "failed"
        await until(lambda num=num_failures: supervisor.num_restarts == num)  # type: ignore[misc]
    await supervisor.engine.ready()
    assert (await reply(supervisor)).status == "completed"
    await supervisor.aclose()


async def test_a_stuck_engine_is_ended_and_comes_back() -> None:
    watched = replace(options(), stuck_after_s=0.5)
    supervisor = EngineSupervisor(watched, policy=QUICK)
    await supervisor.start()
    await supervisor.engine.ready()
    first_pid = supervisor.pid
    await asyncio.sleep(0.7)  # idle for longer than a step may take
    assert (await reply(supervisor)).status == "completed"
    assert supervisor.pid == first_pid
    async with asyncio.timeout(10):
        last = await reply(supervisor, "stuck")
    assert last.status == "failed"
    await supervisor.engine.ready()
    assert supervisor.pid != first_pid
    assert (await reply(supervisor)).status == "completed"
    await supervisor.aclose()


@MODES
async def test_a_wrong_checkpoint_is_told_once_and_not_tried_again(mode: EngineMode) -> None:
    before = resources()
    supervisor = EngineSupervisor(options("no_checkpoint"), mode=mode, policy=QUICK)
    await supervisor.start()
    async with asyncio.timeout(10):
        with pytest.raises(EngineLostError, match="there is no checkpoint in this folder"):
            await supervisor.engine.ready()
    assert supervisor.state == "failed"
    assert supervisor.error == "there is no checkpoint in this folder"
    assert supervisor.num_restarts == 0
    assert not supervisor.engine.open(instructions="", voice=None).is_alive
    await supervisor.aclose()
    assert resources() == before
    assert supervisor.state == "failed"


async def test_silent_crashes_while_loading_are_no_endless_loop() -> None:
    supervisor = EngineSupervisor(options("dies_while_loading"), policy=QUICK)
    await supervisor.start()
    async with asyncio.timeout(10):
        with pytest.raises(EngineLostError, match="SIGKILL"):
            await supervisor.engine.ready()
    assert supervisor.state == "failed"
    assert supervisor.num_restarts == QUICK.max_first_loads - 1
    await supervisor.aclose()


async def after_start(supervisor: EngineSupervisor) -> None:
    """Close before the supervisor's task has run."""


async def while_loading(supervisor: EngineSupervisor) -> None:
    await asyncio.sleep(0.05)


async def while_waiting_to_restart(supervisor: EngineSupervisor) -> None:
    await supervisor.engine.ready()
    await reply(supervisor, "crash-step")
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("moment", [after_start, while_loading, while_waiting_to_restart])
async def test_aclose_at_any_moment_leaves_nothing(
    moment: Callable[[EngineSupervisor], Awaitable[None]],
) -> None:
    before = resources()
    supervisor = EngineSupervisor(options(), policy=RestartPolicy(first_s=60))
    await supervisor.start()
    await moment(supervisor)
    async with asyncio.timeout(5):
        await supervisor.aclose()
    assert resources() == before


def test_a_loop_that_goes_down_takes_the_engine_along() -> None:
    """Whoever forgets `aclose`: no process stays behind."""
    before = resources()

    async def forget() -> None:
        supervisor = EngineSupervisor(options())
        await supervisor.start()
        await supervisor.engine.ready()

    asyncio.run(forget())
    deadline_s = time.monotonic() + 5
    while resources() != before:
        assert time.monotonic() < deadline_s, (before, resources())
        time.sleep(0.01)
