"""Coming back to a session after a dropped socket (extension, opt-in)."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving, until
from fake_engine import Script
from starlette.websockets import WebSocketState
from test_bad_input import event, next_event, user
from websockets.exceptions import ConnectionClosed, InvalidStatus

from daemon.resume import Journal, KeptSessions
from daemon.sessions import NORMAL, SessionEnded
from daemon.websocket import _Returning

REPLY_BYTES = 8 * 1_920 * 2


def resume(rig: Rig, token: str, after: str | None = None) -> Any:
    behind = "" if after is None else f"&after={after}"
    return websockets.connect(f"ws://127.0.0.1:{rig.port}/v1/realtime?resume={token}{behind}")


async def collect(socket: Any, last: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] != last:
        seen.append(await next_event(socket))
    return seen


def num_bytes(events: list[dict[str, Any]]) -> int:
    deltas = [each["delta"] for each in events if each["type"] == "response.output_audio.delta"]
    return sum(len(base64.b64decode(delta)) for delta in deltas)


async def test_words_on_their_way_are_not_lost() -> None:
    """The client saw a part, more was sent into nothing, more was made while it was away."""
    async with serving(Script(holds_at=4)) as rig:
        async with websockets.connect(rig.ws + "&x-ext=1") as socket:
            created = await next_event(socket)
            await socket.send(user({"type": "input_text", "text": "hi"}))
            await socket.send(event("response.create"))
            seen = await collect(socket, "response.output_audio.delta")
            await until(lambda: rig.engine.responses[0].num_frames == 4)
            socket.transport.abort()
        rig.engine.response.go_on()
        await until(lambda: rig.engine.response.is_ended or rig.engine.response.num_frames == 8)
        assert rig.num_live == 1
        async with resume(rig, created["x_resume_token"], seen[-1]["event_id"]) as socket:
            again = await next_event(socket)
            assert again["type"] == "session.created"
            assert again["session"] == created["session"]
            assert again["x_resume_token"] == created["x_resume_token"]
            rest = await collect(socket, "rate_limits.updated")
            assert num_bytes(seen) + num_bytes(rest) == REPLY_BYTES
            ids = [each["event_id"] for each in [created, *seen, *rest]]
            assert len(set(ids)) == len(ids), "nothing twice"
            done = [each for each in rest if each["type"] == "response.done"]
            assert done[0]["response"]["status"] == "completed"
            # the same conversation goes on, in the same context
            rig.engine.script = Script(words=("Again",), num_frames=1)
            await socket.send(event("response.create"))
            await collect(socket, "response.done")
            assert rig.engine.context.story[0] == "user: hi"
            assert len(rig.engine.contexts) == 1
        await until(lambda: rig.num_live == 0)


async def test_without_a_last_event_what_was_not_sent_comes() -> None:
    async with serving(Script(holds_at=2)) as rig:
        async with websockets.connect(rig.ws + "&x-ext=1") as socket:
            created = await next_event(socket)
            await socket.send(event("response.create"))
            await collect(socket, "response.output_audio.delta")
            await until(lambda: rig.engine.response.num_frames == 2)
            socket.transport.abort()
        (kept,) = rig.app.state.sessions._live.values()
        await until(lambda: kept.session._listeners[0].__self__._put is None)
        rig.engine.response.go_on()
        async with resume(rig, created["x_resume_token"]) as socket:
            seen = await collect(socket, "response.done")
            assert num_bytes(seen) >= REPLY_BYTES * 6 // 8


async def test_a_full_journal_comes_whole() -> None:
    """What waited for a client may be as much as may wait at all, and `session.created`."""
    limit = 100_000
    async with serving(Script(num_frames=1), limits__max_outbox_bytes=limit) as rig:
        async with websockets.connect(rig.ws + "&x-ext=1") as socket:
            created = await next_event(socket)
            socket.transport.abort()
        (kept,) = rig.app.state.sessions._live.values()
        keeper = kept.session._listeners[0].__self__
        await until(lambda: keeper._put is None)
        for _ in range(300):
            kept.session.refuse("x" * 300, "invalid_value")
        missed = len(keeper.journal.seek(None))
        assert missed * 300 > limit // 2
        async with resume(rig, created["x_resume_token"]) as socket:
            assert (await next_event(socket))["type"] == "session.created"
            for _ in range(missed):
                assert (await next_event(socket))["type"] == "error"
            await socket.send(event("response.cancel", event_id="mine"))
            assert (await next_event(socket))["error"]["event_id"] == "mine"


async def test_who_does_not_come_back_is_given_up() -> None:
    async with serving(websocket__resume_grace_s=0.1, session__max_sessions=1) as rig:
        async with websockets.connect(rig.ws + "&x-ext=1") as socket:
            token = (await next_event(socket))["x_resume_token"]
            socket.transport.abort()
        await until(lambda: rig.num_live == 0)
        assert rig.engine.context.is_closed
        with pytest.raises(InvalidStatus) as refused:
            async with resume(rig, token):
                pass
        assert refused.value.response.status_code == 404
        async with websockets.connect(rig.ws) as socket:
            assert (await next_event(socket))["type"] == "session.created", "the place is free"


async def test_who_is_away_gives_way_to_a_newcomer() -> None:
    async with serving(websocket__resume_grace_s=60.0, session__max_sessions=2) as rig:
        tokens = []
        for _ in range(2):
            async with websockets.connect(rig.ws + "&x-ext=1") as socket:
                tokens.append((await next_event(socket))["x_resume_token"])
                socket.transport.abort()
            kept = rig.app.state.sessions._live
            await until(lambda kept=kept: all(_is_away(live) for live in kept.values()))
        async with websockets.connect(rig.ws) as newcomer:
            assert (await next_event(newcomer))["type"] == "session.created"
            await until(lambda: rig.num_live == 2)
            with pytest.raises(InvalidStatus):  # the one that had waited longest has ended
                async with resume(rig, tokens[0]):
                    pass
            async with resume(rig, tokens[1]) as back:
                assert (await next_event(back))["type"] == "session.created"
                with pytest.raises(InvalidStatus) as refused:  # nobody is away any more
                    async with websockets.connect(rig.ws):
                        pass
                assert refused.value.response.status_code == 503


def _is_away(live: Any) -> bool:
    return live.session._listeners[0].__self__._put is None


async def test_a_goodbye_ends_the_session_at_once() -> None:
    async with serving() as rig:
        async with websockets.connect(rig.ws + "&x-ext=1") as socket:
            await next_event(socket)
        await until(lambda: rig.num_live == 0)
        assert rig.engine.context.is_closed


async def test_a_new_socket_takes_over_from_one_that_hangs() -> None:
    async with serving() as rig, websockets.connect(rig.ws + "&x-ext=1") as hanging:
        token = (await next_event(hanging))["x_resume_token"]
        async with resume(rig, token) as socket:
            await next_event(socket)
            with pytest.raises(ConnectionClosed):
                await next_event(hanging)
            assert hanging.close_code == 1000
            await socket.send(event("response.cancel"))
            assert (await next_event(socket))["error"]["code"] == "response_cancel_not_active"
            assert rig.num_live == 1


async def test_the_end_of_a_kept_session_reaches_its_socket() -> None:
    async with (
        serving(session__max_duration_s=1) as rig,
        websockets.connect(rig.ws + "&x-ext=1") as socket,
    ):
        await next_event(socket)
        assert (await next_event(socket))["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1001


async def test_only_for_those_who_ask() -> None:
    async with serving() as rig:
        async with websockets.connect(rig.ws) as socket:
            assert "x_resume_token" not in await next_event(socket)
            socket.transport.abort()
        await until(lambda: rig.num_live == 0)


def test_a_journal_keeps_the_newest_and_knows_what_was_sent() -> None:
    journal = Journal(max_bytes=6)
    for name in ("a", "b", "c"):
        journal.append(name, name * 2)
    journal.note_sent()
    assert journal.seek(None) == ["bb", "cc"]
    journal.append("d", "dd")
    assert journal.seek(None) == ["bb", "cc", "dd"]
    assert journal.seek("c") == ["dd"]
    assert journal.seek("a") == ["dd"], "forgotten: what was not sent"
    journal.append("e", "e" * 100)
    assert journal.seek(None) == ["e" * 100]


def test_what_is_forgotten_on_its_way_is_not_counted_for_another() -> None:
    journal = Journal(max_bytes=6)
    for name in ("a", "b", "c", "d"):
        journal.append(name, name * 2)
    journal.note_sent()  # "a", which a socket had taken before it was forgotten
    assert journal.seek(None) == ["bb", "cc", "dd"]
    for name in ("e", "f"):
        journal.append(name, name * 2)
    assert journal.seek(None) == ["dd", "ee", "ff"]
    journal.note_sent()
    assert journal.seek(None) == ["ee", "ff"]


class HeldSocket:
    """In place of an accepted socket: takes so many messages, and no more until it is let go."""

    def __init__(self, num_taken: int) -> None:
        self.query_params: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.client_state = WebSocketState.CONNECTED
        self.num_taken = num_taken
        self.taken: list[str] = []
        self.closes: list[int] = []
        self._is_let_go = asyncio.Event()
        self._is_dropped = asyncio.Event()

    def let_go(self) -> None:
        self._is_let_go.set()

    def drop(self) -> None:
        self.client_state = WebSocketState.DISCONNECTED
        self._is_dropped.set()

    async def receive(self) -> dict[str, Any]:
        await self._is_dropped.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send_text(self, text: str) -> None:
        if len(self.taken) >= self.num_taken:
            await self._is_let_go.wait()
        self.taken.append(text)

    async def close(self, code: int, reason: str) -> None:
        self.closes.append(code)

    @property
    def refusals(self) -> list[str]:
        events = map(json.loads, self.taken)
        return [each["error"]["message"] for each in events if each["type"] == "error"]


async def test_what_a_lost_socket_gets_rid_of_is_not_counted_as_sent() -> None:
    """One takes over from one that hangs, which then sends what it had; all comes to the next."""
    async with serving() as rig, asyncio.TaskGroup() as group:
        sessions = rig.app.state.sessions
        keeper = KeptSessions(sessions)
        hanging, second, third = HeldSocket(2), HeldSocket(3), HeldSocket(10_000)
        first = _Returning(hanging, sessions, keeper.new(""))
        session, kept = first.open([]), first.kept
        keeper.start(kept, session, sessions.take_place("websocket", ""))
        group.create_task(first.begin(session))
        await until(lambda: len(hanging.taken) == 1)
        for number in range(8):
            session.refuse(str(number), "invalid_value")
        await until(lambda: len(hanging.taken) == 2)
        group.create_task(_Returning(second, sessions, kept).come_back(session, None))
        await until(lambda: len(second.taken) == 3)
        hanging.let_go()
        await until(lambda: bool(hanging.closes))
        assert hanging.refusals[-1] == "7", "it was sent what it waited for"
        assert second.refusals == ["1", "2"]
        second.drop()
        await until(lambda: kept.waits_since_s is not None)
        group.create_task(_Returning(third, sessions, kept).come_back(session, None))
        await until(lambda: len(third.taken) == 6)
        assert third.refusals == ["3", "4", "5", "6", "7"]
        kept.end(SessionEnded(NORMAL, ""))
