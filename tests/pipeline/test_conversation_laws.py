"""Whatever is done in whatever order: engine and items say the same, and all that begins ends."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np
from fake_engine import FakeEngine, Script, Speech, line_of
from fake_session import Session, config, loud, quiet, session, settle
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import events
from pipeline.errors import BadInputError
from pipeline.items import Item, TextContent
from pipeline.messages import ResponseOptions

ACTIONS = st.sampled_from(
    [
        "speak",
        "pause",
        "type",
        "type_first",
        "delete_first",
        "delete_last",
        "respond",
        "respond_text",
        "cancel",
        "clear_output",
        "truncate",
        "commit",
        "clear_input",
        "to_manual",
        "to_voice",
        "look",
        "look_away",
        "listen",
        "wait",
        "go_on",
        "die",
        "rest",
    ]
)
_names = itertools.count()


async def act(s: Session, action: str) -> None:
    conversation = s.conversation
    item = Item(id=f"t{next(_names)}", role="user", content=[TextContent(text=action)])
    ids = [item.id for item in conversation._log.history]
    match action:
        case "speak":
            await conversation.append_audio(loud(7)[:3333], rate_hz=16_000)
        case "pause":
            await conversation.append_audio(quiet(8), rate_hz=16_000)
        case "type":
            conversation.create_item(item)
        case "type_first":
            conversation.create_item(item, previous_item_id="root")
        case "delete_first" | "delete_last" if ids:
            conversation.delete_item(ids[0 if action == "delete_first" else -1])
        case "respond":
            conversation.respond()
        case "respond_text":
            conversation.respond(ResponseOptions(audio=False))
        case "cancel":
            conversation.cancel_response()
        case "clear_output":
            conversation.clear_output()
        case "truncate" if ids:
            conversation.truncate_item(ids[-1], audio_end_ms=200)
        case "commit":
            conversation.commit()
        case "clear_input":
            conversation.clear_input()
        case "to_manual":
            conversation.configure(config(None))
        case "to_voice":
            conversation.configure(config())
        case "look":
            conversation.append_frame(np.zeros((4, 6, 3), np.uint8))
        case "look_away":
            conversation.stop_camera()
        case "listen" if s.playout is not None:
            for _ in range(10):
                s.playout.read(480)
        case "wait":
            await s.clock.advance(0.2)
        case "go_on":
            for response in s.engine.responses:
                response.go_on()
        case "die":
            s.engine.die()
        case "rest":
            await settle()


def check_same(s: Session) -> None:
    """What the engine knows is what a new one would be told, open speech behind it."""
    conversation = s.conversation
    context = s.engine.context
    told = [line_of(message) for message in conversation._log.history.messages()]
    entries = [entry for entry in context.entries if entry is not context.active]
    open_speech = conversation._log.speech
    if open_speech is not None:
        last = entries.pop()
        assert isinstance(last, Speech)
        assert not last.is_closed
        np.testing.assert_array_equal(last.pcm, open_speech.content().pcm)
    known = [line for line in map(line_of, entries) if line != "assistant: "]
    assert known == told


def check_order(log: list[Any]) -> None:
    """Starts and ends pair up; nothing of a reply comes before its start or after its end."""
    open_speech: str | None = None
    open_reply: str | None = None
    playing: str | None = None
    for event in log:
        match event:
            case events.SpeechStarted():
                assert open_speech is None
                open_speech = event.item_id
            case events.SpeechStopped():
                assert event.item_id == open_speech
                open_speech = None
            case events.Cleared():
                open_speech = None
            case events.ResponseStarted():
                assert open_reply is None
                open_reply = event.response_id
            case events.ResponseItemStarted() | events.ResponseText() | events.ResponseAudio():
                assert event.response_id == open_reply
            case events.ResponseFinished():
                assert event.response_id == open_reply
                open_reply = None
            case events.OutputStarted():
                assert playing is None
                playing = event.response_id
            case events.OutputStopped() | events.OutputCleared():
                assert event.response_id == playing
                playing = None
    assert open_reply is None


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS, max_size=30), st.booleans(), st.sampled_from([None, 0, 3]))
async def test_log_and_items_stay_the_same(
    actions: list[str], has_playout: bool, holds_at: int | None
) -> None:
    engine = FakeEngine(Script(holds_at=holds_at))
    async with session(engine=engine, has_playout=has_playout) as s:
        for action in actions:
            with contextlib.suppress(BadInputError):
                await act(s, action)
        await settle()
        await act(s, "go_on")
        await settle()
        if not engine.context.is_alive:  # nobody has noticed yet: any use does
            s.conversation.create_item(Item(id="z", role="user", content=[TextContent(text="z")]))
            await settle()
        await act(s, "go_on")
        await settle()
        check_same(s)
    check_order(s.everything)
