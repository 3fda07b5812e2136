"""The wire on its own: all input is an event or an error, shapes are exact, imports are few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.protocol import (
    CLIENT_EVENTS,
    ClientEvent,
    ProtocolError,
    parse_client_event,
    server_events,
)

ROOT = Path(__file__).parents[2]
NAMES = [
    "session", "type", "audio", "input", "output", "turn_detection", "voice", "item", "content",
    "role", "text", "item_id", "response", "metadata", "event_id", "format", "rate", "tools",
]  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["realtime", "message", "user", "input_text", "audio/pcm", "server_vad"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)


def parse(data: str | bytes) -> ClientEvent | ProtocolError:
    try:
        return parse_client_event(data)
    except ProtocolError as error:
        return error


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CLIENT_EVENTS)), st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_json_is_an_event_or_an_error(kind: str, fields: dict[str, Any]) -> None:
    parse(json.dumps({**fields, "type": kind}))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_bytes_are_an_error(data: str | bytes) -> None:
    assert isinstance(parse(data), ProtocolError)


@pytest.mark.parametrize("kind", sorted(CLIENT_EVENTS))
def test_every_event_refuses_what_it_does_not_know(kind: str) -> None:
    found = parse(json.dumps({"type": kind, "event_id": "mine", "surprise": 1}))
    assert isinstance(found, ProtocolError)
    assert found.event_id == "mine"
    assert found.code in ("unknown_parameter", "missing_required_parameter")


def test_absent_and_null_are_told_apart() -> None:
    committed = server_events.Committed(previous_item_id=None, item_id="i", event_id="e")
    assert json.loads(committed.to_json()) == {
        "type": "input_audio_buffer.committed",
        "event_id": "e",
        "previous_item_id": None,
        "item_id": "i",
    }
    part = server_events.ContentPart(type="audio", transcript="")
    assert json.loads(part.model_dump_json()) == {"type": "audio", "transcript": ""}


def test_the_wire_imports_neither_server_nor_model() -> None:
    code = (
        "import sys, daemon.protocol\n"
        "heavy = {'torch', 'numpy', 'av', 'aiortc', 'fastapi', 'uvicorn', 'pipeline'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_tracing_is_small_and_a_long_event_holds_few_values() -> None:
    def tracing(metadata: Any) -> ClientEvent | ProtocolError:
        session = {"type": "realtime", "tracing": {"metadata": metadata}}
        return parse(json.dumps({"type": "session.update", "session": session}))

    assert isinstance(tracing({"a": "x" * 16_000}), ClientEvent)
    refused = tracing({"a": "x" * 17_000})
    assert isinstance(refused, ProtocolError)
    assert (refused.code, refused.param) == ("invalid_value", "session.tracing")
    refused = tracing([{"x": 1, "y": "zz"}] * 200_000)
    assert isinstance(refused, ProtocolError)
    assert refused.message == "The event holds too many values."
    audio = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (2 << 20)})
    assert isinstance(parse(audio), ClientEvent)
