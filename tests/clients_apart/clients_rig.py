"""A conversation whose engine knows its part, for clients that run as processes of their own.

Four replies, whatever client asks for them: words; a call of the tool; the answer to its result; a
long reply that the user talks over; and one more. What the client did is read off the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import environments
import pytest
from daemon_rig import Rig, serving
from fake_engine import FakeContext, FakeEngine, FakeResponse, Script

from pipeline.messages import ResponseOptions

CLIENT_S = 45
LONG = tuple(f" word{index}" for index in range(40))
PLAY = (
    Script(),
    Script(words=(), num_frames=0, calls=(("weather", '{"city": "Rome"}'),)),
    Script(words=("It", " is", " sunny", " there")),
    Script(words=LONG, num_frames=len(LONG), step_s=0.02, holds_at=20),
    Script(words=("Then", " go", " on", " please")),
)


class PlayingContext(FakeContext):
    """Plays the next scene in each reply of the conversation; those beside it transcribe.

    A scene is over when its reply stays in the log: one that was begun before its turn was surely
    over, and taken back, is played again.
    """

    def respond(self, options: ResponseOptions, *, speculative: bool = False) -> FakeResponse:
        if self is self.engine.contexts[0]:
            self.engine.script = PLAY[len(self.replies)]
        else:
            self.engine.script = Script(words=("hello",), num_frames=0)
        return super().respond(options, speculative=speculative)

    @property
    def replies(self) -> list[FakeResponse]:
        """Those in the log."""
        return [each for each in self.entries if isinstance(each, FakeResponse)]


class PlayingEngine(FakeEngine):
    """An engine that plays `PLAY`."""

    def open(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> FakeContext:
        context = PlayingContext(self, instructions=instructions, voice=voice, tools=tools)
        self.contexts.append(context)
        return context


@contextlib.asynccontextmanager
async def playing(**overrides: Any) -> AsyncIterator[Rig]:
    """A server behind which the play is given."""
    async with serving(engine=PlayingEngine(), **overrides) as rig:
        yield rig


def require(name: str) -> None:
    """Skip where a client's environment could not be made; in CI that is a failure."""
    if environments.is_made(name):
        return
    message = f"the client '{name}' is not installed; `make test` does it"
    if os.environ.get("OMNID_REQUIRE_CLIENTS"):
        pytest.fail(message)
    pytest.skip(message)


async def run_client(command: Sequence[str | Path]) -> dict[str, Any]:
    """Run a client to its end; what it reports."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    talking = asyncio.create_task(process.communicate())
    await asyncio.wait([talking], timeout=CLIENT_S)
    is_late = not talking.done()
    if is_late:
        process.kill()
    out, err = await talking
    assert not is_late, f"the client did not end: {err.decode()[-6000:]}"
    assert process.returncode == 0, err.decode()[-6000:]
    found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return found


async def run_node(url: str) -> dict[str, Any]:
    """Run Node's client."""
    require(environments.NODE)
    folder = environments.FOLDER / environments.NODE
    # modules are looked for beside the script
    script = shutil.copy(environments.HERE / "node" / "talk.mjs", folder)
    return await run_client(["node", script, url])


async def run_python(name: str, url: str, *arguments: str) -> dict[str, Any]:
    """Run the script of a Python client in its environment."""
    require(name)
    script = environments.HERE / "scripts" / f"{name}.py"
    return await run_client([environments.python_of(name), script, url, *arguments])


def check_played(rig: Rig, *, opening: str = "user: <>", result: str = "sunny") -> None:
    """The play went as written: spoken turns, the tool's answer, and of the reply that was talked
    over only what was heard.
    """
    context = rig.engine.contexts[0]
    assert isinstance(context, PlayingContext)
    story, cut = context.story, context.replies[3]
    assert 0 < len(cut.kept) < len("".join(LONG)), cut.kept
    told = ["user: <>" if line.startswith("user: <") else line for line in story]
    assert told == [
        opening,
        "assistant: One two three four",
        "user: <>",
        f"user: -> {result}",
        "assistant: It is sunny there",
        "user: <>",
        f"assistant: {cut.kept}",
        "user: <>",
        "assistant: Then go on please",
    ]
