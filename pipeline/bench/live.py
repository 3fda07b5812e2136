"""A made user who talks in real time, over a real call, with a server that is no part of this.

The call is held by a process of its own (`clients.bench.call` says what goes through the pipe); the
user is here. It is a little ahead of its microphone, so it hears the agent 60 ms late, which people
do, too. While it thinks of what to say next (a synthesizer is at work) its room is heard; what it
says is known to the sample all the same, by which block of 20 ms carried it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline import events
from pipeline.bench.recording import Recording
from pipeline.bench.user import STEP_S, Said, User
from pipeline.bench.words import words_heard
from pipeline.errors import PipelineError
from pipeline.messages import ENGINE_INPUT_HZ, ENGINE_OUTPUT_HZ, Pcm, Pcm16
from pipeline.resample import Resampler

CALL_HZ = 48_000
MAX_LINE_BYTES = 2**28  # what was heard comes in one line
LEAD_BLOCKS = 3
ROOM_BLOCKS = 25  # the user waits for longer than that at first
AUDIBLE_FOR_S = 0.06
TIDY_BLOCKS = 250  # longest wait for what the history holds
TAIL_S = 0.3  # of sound that may come behind the event that it was cut


class LiveError(PipelineError):
    """No server, no call, or it broke; the message is one line."""

    exit_code = 1


class BrokenCallError(LiveError):
    """A call that tells nothing; another one may."""


class Line:
    """The pipe to the process that calls."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._in, self._out = process.stdin, process.stdout
        self.server: Mapping[str, Any] = {}
        self.networks: Sequence[str] = ()

    @property
    def is_alive(self) -> bool:
        """Whether somebody is there who calls."""
        return self._process.returncode is None

    def order(self, **what: Any) -> None:
        """Ask for something."""
        self._in.write(json.dumps(what).encode() + b"\n")

    async def told(self) -> dict[str, Any]:
        """The next thing that happened.

        Raises:
            LiveError: the call failed, or the process that holds it has ended.
        """
        told = await self._next()
        if told["told"] == "failed":
            raise LiveError(told["reason"])
        return told

    async def hang_up(self) -> dict[str, Any]:
        """End a call; returns what was heard of it.

        Raises:
            LiveError: the process that holds it has ended.
        """
        self.order(do="end")
        while (told := await self._next())["told"] != "heard":
            pass
        return told

    async def _next(self) -> dict[str, Any]:
        line = await self._out.readline()
        if not line:
            raise LiveError("the process that calls has ended")
        told: dict[str, Any] = json.loads(line)
        return told


@asynccontextmanager
async def calling(**where: Any) -> AsyncIterator[Line]:
    """A process that calls a server; `where`: the first line of `clients.bench.call`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.bench.call"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    try:
        line = Line(process)
        line.order(**where)
        ready = await line.told()
        line.server, line.networks = ready["server"], ready["networks"]
        yield line
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself, and its server with it
        await process.wait()


@dataclass(slots=True)
class Life:
    """A user whose steps are taken beside the event loop: they may last."""

    user: User
    blocks: list[Pcm] = field(default_factory=list)
    sent_at: list[int] = field(default_factory=list)  # by the user's step: the number of its block
    is_over: bool = False
    _life: Generator[Pcm, bool, None] = field(init=False)
    _thinking: asyncio.Task[Pcm | None] | None = None

    def __post_init__(self) -> None:
        self._life = self.user.live()

    def next_block(self, *, is_audible: bool) -> Pcm:
        """What the microphone takes in next: [320] float32 at 16 kHz."""
        if self._thinking is not None and not self._thinking.done():
            return self._add(self._room())
        said = self._thinking.result() if self._thinking is not None else next(self._life)
        if said is None:
            self.is_over = True
            return self._add(self._room())
        self.sent_at.append(len(self.blocks))
        thinking = asyncio.to_thread(self._step, is_audible)
        self._thinking = asyncio.get_running_loop().create_task(thinking, name="user-thinks")
        return self._add(said)

    def _step(self, is_audible: bool) -> Pcm | None:
        try:
            return self._life.send(is_audible)
        except StopIteration:
            return None

    def _room(self) -> Pcm:
        """The noise where the user is, as it was at first, when it waited."""
        number = len(self.blocks) % ROOM_BLOCKS
        return self.blocks[number] if number < len(self.blocks) else self.blocks[0] * 0

    def _add(self, pcm: Pcm) -> Pcm:
        self.blocks.append(pcm)
        return pcm

    def said(self) -> list[Said]:
        """The truth, in the time of the microphone."""
        return [
            replace(
                said,
                on_s=self._begins(said.on_s),
                off_s=self._ends(said.off_s),
                pauses=tuple((self._ends(a), self._begins(b)) for a, b in said.pauses),
            )
            for said in self.user.said
        ]

    def _begins(self, at_s: float) -> float:
        return self.sent_at[round(at_s / STEP_S)] * STEP_S

    def _ends(self, at_s: float) -> float:
        return (self.sent_at[round(at_s / STEP_S) - 1] + 1) * STEP_S


@dataclass(slots=True)
class _Diary:
    """What the server said, with when it came."""

    told: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    responses: dict[str, str] = field(default_factory=dict)  # by item
    truncated: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    num_underruns: int = 0

    def note(self, at_s: float, event: Mapping[str, Any]) -> None:
        """One more event."""
        self.told.append((at_s, event))
        match event["type"]:
            case "response.output_audio_transcript.delta":
                item = event["item_id"]
                self.texts[item] = self.texts.get(item, "") + event["delta"]
                self.responses[item] = event["response_id"]
            case "conversation.item.truncated":
                self.truncated.append(event["item_id"])
            case "conversation.item.retrieved":
                item = event["item"]
                self.kept[item["id"]] = item["content"][0].get("transcript") or ""
            case "x.metrics":
                self.num_underruns += event["num_underruns"]

    def session_events(self, began_s: float) -> list[tuple[float, events.SessionEvent]]:
        """Those that measuring knows, in the time of the microphone."""
        found: list[tuple[float, events.SessionEvent]] = []
        for at_s, event in self.told:
            known = _session_event(event)
            if known is not None:
                found.append((at_s - began_s, known))
        return found


def _session_event(event: Mapping[str, Any]) -> events.SessionEvent | None:
    match event["type"]:
        case "input_audio_buffer.speech_started":
            return events.SpeechStarted(
                item_id=event["item_id"], audio_start_ms=event["audio_start_ms"]
            )
        case "input_audio_buffer.speech_stopped":
            return events.SpeechStopped(
                item_id=event["item_id"], audio_end_ms=event["audio_end_ms"]
            )
        case "output_audio_buffer.started":
            return events.OutputStarted(response_id=event["response_id"])
        case "output_audio_buffer.stopped":
            return events.OutputStopped(response_id=event["response_id"])
        case "output_audio_buffer.cleared":
            return events.OutputCleared(response_id=event["response_id"])
    return None


async def talk(
    line: Line,
    user: User,
    *,
    network: str,
    seed: int,
    has_camera: bool,
    session: Mapping[str, Any],
) -> Recording:
    """One call, until the user has said all that it wanted.

    Raises:
        BrokenCallError: the call broke.
        LiveError: no call can be held.
    """
    life, diary = Life(user), _Diary()
    line.order(network=network, seed=seed, camera=has_camera, session=session)
    try:
        await _open(line, diary)
        await _converse(line, life, diary)
    except LiveError as error:
        await line.hang_up()
        raise BrokenCallError(str(error)) from error
    heard = await line.hang_up()
    pcm = np.frombuffer(base64.b64decode(heard["pcm"]), np.int16)
    agent = pcm[: len(pcm) // 2 * 2].reshape(-1, 2).mean(axis=1).astype(np.int16)
    told = diary.session_events(heard["began_s"])
    age_s = heard["picture_age_s"]
    return Recording(
        seed=user.seed,
        said=life.said(),
        told=told,
        user=np.concatenate(life.blocks),
        agent=agent,
        cuts=_cuts(diary, told, agent),
        picture_ages_s=[] if age_s is None else [age_s],
        num_underruns=diary.num_underruns + heard["num_breaks"],
        late_s=heard["late_s"],
    )


async def _open(line: Line, diary: _Diary) -> None:
    while (told := await line.told())["told"] != "open":
        if told["told"] == "event":
            diary.note(told["at_s"], told["event"])


async def _converse(line: Line, life: Life, diary: _Diary) -> None:
    """Say all of the user's life, and ask then what the history holds of replies that were cut."""
    resampler = Resampler(in_hz=ENGINE_INPUT_HZ, out_hz=CALL_HZ)
    size = round(STEP_S * CALL_HZ)
    ready, audible_s, num_tidy = np.zeros(0, np.float32), 0.0, 0

    def say() -> None:
        nonlocal ready
        is_audible = time.monotonic() - audible_s < AUDIBLE_FOR_S
        while len(ready) < size:  # the resampler keeps a millisecond back
            pcm = life.next_block(is_audible=is_audible)
            ready = np.concatenate([ready, resampler.push(pcm)])
        block, ready = ready[:size], ready[size:]
        data = np.clip(block * 32767, -32767, 32767).astype("<i2").tobytes()
        line.order(do="say", pcm=base64.b64encode(data).decode())

    for _ in range(LEAD_BLOCKS):
        say()
        await asyncio.sleep(STEP_S)
    while num_tidy < TIDY_BLOCKS:
        told = await line.told()
        match told["told"]:
            case "event":
                diary.note(told["at_s"], told["event"])
            case "audible":
                audible_s = time.monotonic()
            case "tick":
                say()
                if life.is_over:
                    if not num_tidy:
                        _ask_history(line, diary)
                    num_tidy += 1
                    if diary.kept.keys() >= set(diary.truncated):
                        return


def _ask_history(line: Line, diary: _Diary) -> None:
    line.order(do="calm")
    for item in dict.fromkeys(diary.truncated):
        line.order(do="send", event={"type": "conversation.item.retrieve", "item_id": item})


def _cuts(
    diary: _Diary, told: list[tuple[float, events.SessionEvent]], agent: Pcm16
) -> list[tuple[int, int]]:
    """Words that were heard of each reply that was cut, beside those that its item holds."""
    started = {e.response_id: at for at, e in told if isinstance(e, events.OutputStarted)}
    cleared = {e.response_id: at for at, e in told if isinstance(e, events.OutputCleared)}
    cuts = []
    for item in dict.fromkeys(diary.truncated):
        response = diary.responses.get(item, "")
        if item not in diary.kept or response not in started or response not in cleared:
            continue
        start, end = started[response] - TAIL_S, cleared[response] + TAIL_S
        span = slice(*(max(0, round(at * ENGINE_OUTPUT_HZ)) for at in (start, end)))
        heard = words_heard(agent[span], diary.texts.get(item, ""))
        if heard is not None:
            cuts.append((heard, len(diary.kept[item].split())))
    return cuts
