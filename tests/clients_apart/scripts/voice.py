"""What a user says, for clients that have no numpy: PCM16, mono; and how a client reports."""

from __future__ import annotations

import json
import math
import struct
import sys
from typing import Any

RATE_HZ = 24_000
PIECE_S = 0.02
REPLY_S = 0.64  # how long a whole reply of the scripted engine lasts


def speech(seconds: float = 0.5, rate_hz: int = RATE_HZ) -> bytes:
    """Loud, so that a detector of loudness takes it for speech."""
    count = int(seconds * rate_hz)
    wave = (int(12_000 * math.sin(2 * math.pi * 300 * t / rate_hz)) for t in range(count))
    return struct.pack(f"<{count}h", *wave)


def silence(seconds: float = 0.8, rate_hz: int = RATE_HZ) -> bytes:
    """Long enough to end a turn."""
    return bytes(2 * int(seconds * rate_hz))


def pieces(pcm: bytes, rate_hz: int = RATE_HZ) -> list[bytes]:
    """As a microphone gives it."""
    size = 2 * int(PIECE_S * rate_hz)
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


def report(**seen: Any) -> None:
    """Tell the test what the client saw."""
    json.dump(seen, sys.stdout)
    print(flush=True)
