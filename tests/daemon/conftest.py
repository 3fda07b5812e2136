"""Lets these tests import what lies beside them, and the pipeline's scripted engine; holds every
event that a test makes the server send against the types that the `openai` package publishes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter, ValidationError

from daemon.protocol_base import ServerEvent

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "pipeline")]

_PUBLISHED: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


@pytest.fixture(autouse=True)
def every_event_fits_the_published_types(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Section 22 of the protocol: strictly, on whatever transport. Our own extensions (`x.`) are
    none of the published types; a client only sees them if it asked for them.
    """
    misfits: list[str] = []
    to_json = ServerEvent.to_json

    def checked(event: ServerEvent) -> str:
        text = to_json(event)
        if not event.type.startswith("x."):
            try:
                _PUBLISHED.validate_json(_as_published(text), strict=True)
            except ValidationError as error:
                misfits.append(f"{text[:400]}: {error.errors()[0]}")
        return text

    monkeypatch.setattr(ServerEvent, "to_json", checked)
    yield
    assert not misfits, misfits[0]


def _as_published(text: str) -> str:
    """Those know one rate of PCM; others are shown only to clients that asked for them."""
    if '"rate":' not in text:
        return text
    return json.dumps(_at_24_khz(json.loads(text)))


def _at_24_khz(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_24_khz(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: 24_000 if key == "rate" and value.get("type") == "audio/pcm" else _at_24_khz(each)
        for key, each in value.items()
    }
