"""The engine's child process lives and dies with its parent, whatever either of them is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).with_name("scripted_core.py")
ROOT = Path(__file__).parents[2]

PARENT = """
import asyncio, signal, sys
from pipeline import messages as port
from pipeline.channels import ProcessChannel
from pipeline.engine_client import EngineClient
from pipeline.worker import WorkerOptions

async def main(core, word):
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    channel = ProcessChannel(WorkerOptions(model="", cache_folder="", core=core), grace_s=0.3)
    client = EngineClient()
    link = client.attach(channel)
    await client.ready()
    context = client.open(instructions="frames=1000000 step_ms=1", voice=None)
    response = context.respond(port.ResponseOptions())
    await anext(response)
    if word:
        context.append_message(port.Message(role="user", parts=(port.TextPart(text=word),)))
    print(channel.pid, flush=True)
    await interrupted.wait()
    if not word:
        await anext(response)
        print("the child still speaks", flush=True)
    channel.close()
    print((await link.lost).error, flush=True)
    channel.join()

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
"""


@pytest.fixture
def parent(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process with an engine that speaks; or is stuck, where the test is parametrized so."""
    word = getattr(request, "param", "")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, f"{CORE}:make_core", word],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def child_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline())


def is_running(pid: int) -> bool:
    """An orphan without a reaper stays as a zombie: that is dead, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_ends(pid: int, timeout_s: float = 3.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while is_running(pid):
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
            pytest.fail(f"process {pid} still ran")
        time.sleep(0.01)


@pytest.mark.parametrize("parent", ["", "stuck"], indirect=True, ids=["speaking", "stuck"])
def test_the_child_dies_with_its_parent(parent: subprocess.Popen[str]) -> None:
    pid = child_of(parent)
    assert is_running(pid)
    parent.kill()
    assert_ends(pid)


def test_signals_to_end_are_for_the_parent(parent: subprocess.Popen[str]) -> None:
    pid = child_of(parent)
    os.killpg(parent.pid, signal.SIGINT)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "the child still speaks\n"
    assert parent.stdout.readline() == "the engine was stopped\n"
    assert parent.wait(5) == 0
    assert not is_running(pid)


@pytest.mark.parametrize("parent", ["stuck"], indirect=True)
def test_a_stuck_child_is_killed_at_close(parent: subprocess.Popen[str]) -> None:
    pid = child_of(parent)
    os.kill(parent.pid, signal.SIGINT)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "the engine was stopped\n"
    assert parent.wait(5) == 0
    assert not is_running(pid)


def test_the_fake_engine_starts_without_torch(parent: subprocess.Popen[str]) -> None:
    """Importing `pipeline.worker` must stay cheap: no torch, in the parent or the child."""
    for pid in (child_of(parent), parent.pid):
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
