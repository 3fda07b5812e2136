"""The engine port over both channels, with a scripted engine at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import messages as port
from pipeline.channels import Channel, ProcessChannel, ThreadChannel
from pipeline.engine_client import EngineClient, EngineResponse
from pipeline.errors import EngineLostError
from pipeline.messages import AudioDelta, ResponseEnded, ResponseEvent, ResponseOptions, TextDelta
from pipeline.worker import WorkerOptions

CORE = Path(__file__).with_name("scripted_core.py")
CHANNELS: dict[str, Any] = {"process": ProcessChannel, "thread": ThreadChannel}
FRAME_SAMPLES = 1920


def options(factory: str = "make_core") -> WorkerOptions:
    return WorkerOptions(model="scripted", cache_folder="", core=f"{CORE}:{factory}")


@contextlib.asynccontextmanager
async def running(channel: Channel) -> AsyncIterator[EngineClient]:
    client = EngineClient()
    link = client.attach(channel)
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        channel.close()
        await asyncio.wait_for(link.lost, 20)
        channel.join()


@pytest.fixture(params=["thread", "process"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[EngineClient]:
    async with running(CHANNELS[request.param](options())) as client:
        yield client


def text(words: str) -> port.Message:
    return port.Message(role="user", parts=(port.TextPart(text=words),))


async def read(response: EngineResponse) -> list[ResponseEvent]:
    return [event async for event in response]


def ended(events: list[ResponseEvent]) -> ResponseEnded:
    assert isinstance(events[-1], ResponseEnded), events
    assert not any(isinstance(event, ResponseEnded) for event in events[:-1])
    return events[-1]


def said(events: list[ResponseEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def resources() -> tuple[set[str], int, list[str]]:
    """Threads, descriptors and child processes of this process."""
    threads = {thread.name for thread in threading.enumerate()}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return threads, sum(1 for _ in Path("/proc/self/fd").iterdir()), children


async def converse(client: EngineClient) -> list[Any]:
    """All kinds of calls; what came back, in a form that can be compared."""
    ready = await client.ready()
    context = client.open(instructions="frames=2", voice="anna")
    context.append_message(text("hello"))
    mark = context.mark()
    context.begin_speech(has_camera=True)
    context.append_audio(np.zeros(320, np.float32))
    context.append_frame(port.Frame(rgb=np.zeros((4, 4, 3), np.uint8), time_s=0.0))
    context.end_speech()
    first = await read(context.respond(ResponseOptions()))
    context.rollback(mark)
    context.configure(instructions="frames=5", voice=None)
    second = context.respond(ResponseOptions(), speculative=True)
    second.confirm()
    spoken = await read(second)
    heard = await second.heard(3 * FRAME_SAMPLES)
    context.rebuild((text("one"), text("two")))
    third = await read(context.respond(ResponseOptions()))
    context.close()
    return [ready, repr(first), repr(spoken), heard, said(third), context.is_alive]


async def test_words_are_read_where_an_engine_reads_them(client: EngineClient) -> None:
    await client.ready()
    context = client.open(instructions="", voice=None)
    needless = context.overhear(np.zeros(4, np.float32))
    answer = context.overhear(np.zeros(5, np.float32))
    assert needless is not None
    assert answer is not None
    assert (await answer).num_words == 5
    assert needless.cancelled()
    context.close()
    assert context.overhear(np.zeros(6, np.float32)) is None


async def test_thread_and_process_answer_alike() -> None:
    found = {}
    for name, channel in CHANNELS.items():
        async with running(channel(options())) as client:
            found[name] = await converse(client)
    assert found["thread"] == found["process"]
    ready, first, spoken, heard, third, is_alive = found["process"]
    assert ready.voices == ("anna", "bert")
    assert "hello begin audio320 frame0 end" in first
    assert spoken.count("AudioDelta") == 5
    assert (heard, third, is_alive) == ("hel", "one two", False)


async def test_frames_come_whole_and_in_order(client: EngineClient) -> None:
    context = client.open(instructions="frames=50", voice=None)
    events = await read(context.respond(ResponseOptions()))
    frames = [event.pcm for event in events if isinstance(event, AudioDelta)]
    assert [int(pcm[0]) for pcm in frames] == list(range(1, 51))
    assert all(len(pcm) == FRAME_SAMPLES and pcm.dtype == np.int16 for pcm in frames)
    assert ended(events).usage.output_audio_tokens == 50
    assert client.num_responses == 0


async def test_a_slow_step_does_not_block_calls(client: EngineClient) -> None:
    context = client.open(instructions="frames=1 step_ms=1500", voice=None)
    response = context.respond(ResponseOptions())
    await asyncio.sleep(0.5)  # another process may take so long to begin the step
    started_s = time.monotonic()
    context.begin_speech(has_camera=True)
    rgb = np.zeros((480, 640, 3), np.uint8)
    for number in range(100):
        context.append_frame(port.Frame(rgb=rgb, time_s=number / 2))
        context.append_audio(np.zeros(320, np.float32))
    assert time.monotonic() - started_s < 0.5  # the step goes on meanwhile
    assert ended(await read(response)).status == "completed"
    log = said(await read(context.respond(ResponseOptions()))).split()
    assert log[:2] == ["begin", "audio320"]
    assert log.count("audio320") == 100
    assert log[-1] == "frame49.5"


async def test_cancel_leaves_no_work_and_no_stale_audio(client: EngineClient) -> None:
    context = client.open(instructions="frames=1000000 step_ms=1", voice=None)
    for num_events in (0, 1, 5):
        response = context.respond(ResponseOptions())
        for _ in range(num_events):
            await anext(response)
        response.cancel()
        response.cancel()
        response.deliver(TextDelta(response=response.id, text="under way when it was cancelled"))
        (only,) = await read(response)
        assert ended([only]).status == "cancelled"
        assert await response.heard(0) == ""
    assert client.num_responses == 0
    other = client.open(instructions="frames=3", voice=None)  # would starve behind an orphan
    assert ended(await read(other.respond(ResponseOptions()))).status == "completed"


async def test_a_speculative_reply_is_silent_until_confirmed(client: EngineClient) -> None:
    context = client.open(instructions="frames=2", voice=None)
    kept, dropped = (context.respond(ResponseOptions(), speculative=True) for _ in range(2))
    await context.respond(ResponseOptions()).heard(0)  # the engine is done with those before
    assert not kept._events
    dropped.cancel()
    assert ended(await read(dropped)).status == "cancelled", "its own end was held back"
    kept.confirm()
    assert ended(await read(kept)).status == "completed"


async def test_heard_cuts_and_ends_a_reply_under_way(client: EngineClient) -> None:
    context = client.open(instructions="frames=1000000 step_ms=1", voice=None)
    context.append_message(text("abcdef"))
    response = context.respond(ResponseOptions())
    await anext(response)
    assert await response.heard(2 * FRAME_SAMPLES) == "ab"
    assert ended(await read(response)).status == "cancelled"


async def test_refused_calls_are_faults_and_the_context_goes_on(
    client: EngineClient, caplog: pytest.LogCaptureFixture
) -> None:
    context = client.open(instructions="", voice=None)
    context.append_message(text("refuse"))
    context.append_message(text("fine"))
    response = context.respond(ResponseOptions(max_tokens=0))
    last = ended(await read(response))
    assert (last.status, last.error) == ("failed", "max_tokens is 0")
    assert await response.heard(100) == ""
    assert context.fault == "this message is refused"
    assert client.num_faults == 1
    assert said(await read(context.respond(ResponseOptions()))) == "fine"


async def test_a_context_that_did_not_open_says_why(client: EngineClient) -> None:
    context = client.open(instructions="", voice="carl")
    context.append_message(text("hello"))
    last = ended(await read(context.respond(ResponseOptions())))
    assert (last.status, last.error) == ("failed", "voice 'carl' is unknown")
    assert client.num_faults == 1
    context.close()


async def test_a_context_that_is_refused_for_now_is_dead_and_says_why(client: EngineClient) -> None:
    context = client.open(instructions="full", voice=None)
    last = ended(await read(context.respond(ResponseOptions())))
    assert (last.status, last.refusal) == ("failed", "overloaded")
    assert last.error == "the engine is at its limit"
    assert (context.is_alive, context.refusal) == (False, "overloaded")
    context = client.open(instructions="", voice=None)
    assert ended(await read(context.respond(ResponseOptions()))).status == "completed"


@pytest.mark.parametrize("word", ["crash-call", "oom-call", "oom-step"])
async def test_one_context_is_lost_and_the_others_go_on(client: EngineClient, word: str) -> None:
    other = client.open(instructions="frames=20 step_ms=2", voice=None)
    context = client.open(instructions="frames=1000000 step_ms=1", voice=None)
    speaking = other.respond(ResponseOptions())
    response = context.respond(ResponseOptions())
    context.append_message(text(word))
    last = ended(await read(response))
    assert last.status == "failed"
    assert last.error
    assert ended(await read(speaking)).status == "completed"
    await other.respond(ResponseOptions()).heard(0)  # answers come in order
    assert not context.is_alive
    assert ended(await read(context.respond(ResponseOptions()))).status == "failed"
    with pytest.raises(EngineLostError):
        await response.heard(0)
    assert ended(await read(other.respond(ResponseOptions()))).status == "completed"


async def test_a_bug_in_a_step_ends_the_engine_with_a_reason(client: EngineClient) -> None:
    context = client.open(instructions="", voice=None)
    context.append_message(text("crash-step"))
    last = ended(await read(context.respond(ResponseOptions())))
    assert last.error == "the engine failed: a bug in a step"
    assert not context.is_alive
    assert client.info is None
    assert not client.open(instructions="", voice=None).is_alive


async def test_kill_mid_reply_fails_the_reply_within_a_second() -> None:
    channel = ProcessChannel(options())
    async with running(channel) as client:
        context = client.open(instructions="frames=1000000 step_ms=5", voice=None)
        response = context.respond(ResponseOptions())
        await anext(response)
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        async with asyncio.timeout(1):
            events = await read(response)
        assert ended(events).status == "failed"
        assert ended(events).error == "the engine process was killed by SIGKILL"
        assert not context.is_alive
        context.append_message(text("ignored"))
        with pytest.raises(EngineLostError):
            await response.heard(0)


async def test_heard_does_not_wait_for_ever() -> None:
    client = EngineClient(heard_timeout_s=0.05)
    channel = ThreadChannel(options())
    link = client.attach(channel)
    context = client.open(instructions="", voice=None)
    context.append_message(text("abc"))
    response = context.respond(ResponseOptions())
    await read(response)
    context.append_message(text("slow-call"))
    with pytest.raises(EngineLostError, match="does not answer"):
        await response.heard(FRAME_SAMPLES)
    await read(context.respond(ResponseOptions()))
    assert await response.heard(2 * FRAME_SAMPLES) == "ab", "not the late answer of the first call"
    channel.close()
    await link.lost
    channel.join()


async def test_an_overloaded_context_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = ThreadChannel(options())
    async with running(channel) as client:
        await client.ready()
        context = client.open(instructions="frames=1 step_ms=200", voice=None)
        response = context.respond(ResponseOptions())
        monkeypatch.setattr(channel._calls, "_max_bytes", 10_000)
        for _ in range(20):
            context.append_audio(np.zeros(320, np.float32))
        assert not context.is_alive
        assert "too far behind" in (ended(await read(response)).error or "")
        await client.open(instructions="", voice=None).respond(ResponseOptions()).heard(0)


async def test_sigint_does_not_end_the_child_and_its_lines_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="engine")
    channel = ProcessChannel(options())
    async with running(channel) as client:
        await client.ready()
        assert channel.pid is not None
        assert os.getpgid(channel.pid) != os.getpgid(0), "the terminal's Ctrl-C is not for it"
        os.kill(channel.pid, signal.SIGINT)
        context = client.open(instructions="", voice=None)
        assert ended(await read(context.respond(ResponseOptions()))).status == "completed"
    assert "a line on stdout" in caplog.messages


@pytest.mark.parametrize("mode", ["thread", "process"])
async def test_close_leaves_nothing(mode: str) -> None:
    before = resources()
    channel = CHANNELS[mode](options())
    async with running(channel) as client:
        response = client.open(instructions="frames=99 step_ms=5", voice=None).respond(
            ResponseOptions()
        )
        await anext(response)
    assert ended(await read(response)).error == "the engine was stopped"
    assert resources() == before
