"""The wire: every event of the Realtime protocol that this server speaks, typed. The import of all
others.

Standard library and pydantic only, so that a small device can use it without the server. How events
map to a conversation is `daemon.realtime`; nothing here knows of sockets.
"""

from __future__ import annotations

from daemon import protocol_server as server_events
from daemon.protocol_audio import PCM_RATE_HZ, AudioFormatView
from daemon.protocol_base import ProtocolError, ServerEvent, error_from
from daemon.protocol_client import (
    CLIENT_EVENTS,
    ClientEvent,
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    InputImageAppend,
    ItemCreate,
    ItemDelete,
    ItemReference,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
    parse_client_event,
)
from daemon.protocol_items import ItemIn, ItemPart, ItemView, PartIn
from daemon.protocol_session import (
    AudioView,
    InputView,
    OutputView,
    ServerVad,
    SessionPatch,
    SessionView,
    TurnDetectionView,
)

__all__ = [
    "CLIENT_EVENTS",
    "PCM_RATE_HZ",
    "AudioFormatView",
    "AudioView",
    "ClientEvent",
    "InputAudioAppend",
    "InputAudioClear",
    "InputAudioCommit",
    "InputImageAppend",
    "InputView",
    "ItemCreate",
    "ItemDelete",
    "ItemIn",
    "ItemPart",
    "ItemReference",
    "ItemRetrieve",
    "ItemTruncate",
    "ItemView",
    "OutputAudioClear",
    "OutputView",
    "PartIn",
    "ProtocolError",
    "ResponseCancel",
    "ResponseCreate",
    "ResponseParams",
    "ServerEvent",
    "ServerVad",
    "SessionPatch",
    "SessionUpdate",
    "SessionView",
    "TurnDetectionView",
    "error_from",
    "parse_client_event",
    "server_events",
]
