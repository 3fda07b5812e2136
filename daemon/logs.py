"""Structured logs on standard error: key=value lines or JSON objects, each with its session's id.

Keys, tokens, audio and what people say are never logged; nor are the queries of addresses and the
names before their hosts, whoever logs them: tokens stand there.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
from datetime import UTC, datetime

session_id: contextvars.ContextVar[str] = contextvars.ContextVar("session_id", default="-")

# At "info" these say once for each request or packet what our own lines say better.
_QUIET = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "aiortc",
    "aioice",
    "websockets",
    "libav",
    "mcp",
    "httpx2",
    "httpcore2",  # tells headers at "debug"
)

# A client's words in a line of ours must neither begin another line nor steer a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_QUERY = re.compile(r"(/[^\s?\"'<>]*)\?[^\s\"'<>]+")
_USER = re.compile(r"(//)[^\s/@\"'<>]+@")


class _WithSession(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.session = session_id.get()
        return True


class _Text(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info daemon.server session=- message`"""

    def format(self, record: logging.LogRecord) -> str:
        message = _on_one_line(_public(record.getMessage()))
        line = (
            f"{_time_of(record)} {record.levelname.lower()} {record.name} "
            f"session={record.__dict__.get('session', '-')} {message}"
        )
        if record.exc_info:
            line += "\n" + _public(self.formatException(record.exc_info))
        return line


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "session": record.__dict__.get("session", "-"),
            "message": _public(record.getMessage()),
        }
        if record.exc_info:
            fields["exception"] = _public(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


def configure(level: str, form: str) -> None:
    """Send all logs of the process to standard error. level: a name of `logging`; form: "text" |
    "json".
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_WithSession())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, root.level) if level != "debug" else logging.INFO)


def _is_news(record: logging.LogRecord) -> bool:
    """uvicorn takes for faults of ours: an upgrade that was refused with an HTTP answer, and an
    answer that we cut because it failed in its middle (our own line says why).
    """
    return record.msg not in (
        "ASGI callable returned without completing handshake.",
        "ASGI callable returned without completing response.",
    )


def _public(text: str) -> str:
    """A text without what may be secret in its addresses."""
    return _USER.sub(r"\1…@", _QUERY.sub(r"\1?…", text))


def _on_one_line(message: str) -> str:
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], message)


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
