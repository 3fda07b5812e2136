"""Coming back to a session after a dropped socket (extension, opt-in)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving, until
from fake_engine import Script
from test_bad_input import event, next_event, user
from websockets.exceptions import ConnectionClosed, InvalidStatus

from daemon.resume import Journal

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
