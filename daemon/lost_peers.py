"""Keeps what aiortc says of peers that dropped out of the log.

It starts tasks that send something and forgets them. Where the peer is gone by then each ends with
an error that nobody retrieves, and asyncio logs it with a traceback as a fault of ours. How a call
ends is noticed elsewhere (`daemon.webrtc`).
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

_LIBRARIES = ("aiortc", "aioice")
_MESSAGES = (
    "Cannot send encrypted data, not connected",
    "Cannot send encrypted RTP, not connected",
    "Cannot send data, not connected",
)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop keep silent about these, and about nothing else."""
    handle = loop.get_exception_handler()

    def quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if _is_lost_peer(context):
            log.debug("a peer was gone: %s", context["exception"])
        elif handle is not None:
            handle(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(quietly)


def _is_lost_peer(context: dict[str, Any]) -> bool:
    error = context.get("exception")
    return (
        isinstance(context.get("future"), asyncio.Task)
        and type(error) is ConnectionError
        and str(error) in _MESSAGES
        and _origin(error.__traceback__) in _LIBRARIES
    )


def _origin(traceback: TracebackType | None) -> str | None:
    """The package that raised."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    name: str = traceback.tb_frame.f_globals.get("__name__", "")
    return name.partition(".")[0]
