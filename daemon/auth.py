"""Who is answered: API keys, and the Host and Origin of a request. All before any upgrade.

Against other web pages in the user's browser: an Origin must be our own or listed, and the Host
must be a name of ours, or a page could rebind its own name to this machine (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.protocol import ProtocolError, SessionPatch
from daemon.settings import ServerSettings, SettingsError

EPHEMERAL_PREFIX = "ek_"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not served; becomes an HTTP error with the protocol's body, also instead of
    an upgrade.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        kind = "invalid_request_error" if status < 500 else "server_error"
        if status == 429:
            kind = "rate_limit_error"
        self.body = {"error": {"message": message, "type": kind, "code": code, "param": param}}

    @classmethod
    def of(cls, error: ProtocolError) -> Refusal:
        """The refusal of a request that asks for what can not be."""
        return cls(400, error.message, error.code, param=error.param)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(settings: ServerSettings) -> None:
    """A public address needs a key and TLS.

    Raises:
        SettingsError: it has not, and `insecure` is not set.
    """
    if settings.tls == "files" and not (settings.tls_certificate and settings.tls_key):
        raise SettingsError("--tls files needs server.tls_certificate and server.tls_key")
    if is_loopback(settings.host) or settings.insecure:
        return
    missing = []
    if not settings.api_keys:
        missing.append("an API key (--api-key, or OMNID_API_KEY)")
    if settings.tls == "off":
        missing.append("TLS (--tls auto)")
    if missing:
        raise SettingsError(
            f"{settings.host} can be reached from other machines: give {' and '.join(missing)}, "
            "or --insecure to do without"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a key allows. An ephemeral one begins sessions only, with the configuration that it
    carries. `owner` stands for the API key, also of an ephemeral one: what limits count by ("":
    nobody has to give a key, so that all count as one).
    """

    is_ephemeral: bool = False
    patch: SessionPatch | None = None
    owner: str = ""


class EphemeralKeys(Protocol):
    """Who knows the ephemeral keys."""

    def grant(self, value: str) -> Grant | None: ...


class ApiKeys:
    """The accepted bearer keys; with none, everybody is let in (but not by an expired secret)."""

    def __init__(self, keys: Iterable[str], ephemeral: EphemeralKeys) -> None:
        self._digests = [digest(key) for key in keys]
        self._ephemeral = ephemeral

    def check(self, headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> Grant:
        """Look for an API key in `Authorization`, or in the subprotocols of a browser.

        Raises:
            Refusal: 401, none or a wrong one, or an ephemeral one. The message never repeats it.
        """
        grant = self.enter(headers, subprotocols)
        if grant.is_ephemeral:
            raise _unknown_key()
        return grant

    def enter(self, headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> Grant:
        """The same where an ephemeral key is as good.

        Raises:
            Refusal: 401, none, or a wrong or expired one.
        """
        key = _key_of(headers, subprotocols)
        if not key and self._digests:
            raise _unknown_key()
        if key.startswith(EPHEMERAL_PREFIX):
            grant = self._ephemeral.grant(key)
            if grant is None:
                raise _unknown_key()
            return grant
        given = digest(key)
        # every comparison runs, so that time tells nothing about which one matched
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if not self._digests:
            return Grant()
        if not any(matches):
            raise _unknown_key()
        return Grant(owner=given.hex())


def _unknown_key() -> Refusal:
    return Refusal(401, "Incorrect or missing API key.", "invalid_api_key")


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _key_of(headers: Mapping[str, str], subprotocols: Iterable[str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    for protocol in subprotocols:
        if protocol.startswith(KEY_SUBPROTOCOL):
            return protocol.removeprefix(KEY_SUBPROTOCOL)
    return ""


class Gate:
    """ASGI middleware: 403 for a Host or Origin that is not ours."""

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self._app = app
        self._is_public = not is_loopback(settings.host)
        self._hosts = {*LOOPBACK_NAMES, *(host.lower() for host in settings.allowed_hosts)}
        if self._is_public:
            name = socket.gethostname().lower()
            self._hosts |= {name, f"{name}.local"}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(headers.get("host", ""), headers.get("origin"))
        except Refusal as refusal:
            await send_refusal(scope, send, refusal)
            return
        await self._app(scope, receive, send)

    def _check(self, host: str, origin: str | None) -> None:
        name = _host_name(host)
        if name is None or not self._is_ours(name):
            raise Refusal(403, "This Host is not served here.", "host_not_allowed")
        if origin is None or origin.lower() in self._origins:
            return
        if _network_location(origin) != host.lower():
            raise Refusal(403, "This Origin may not connect.", "origin_not_allowed")

    def _is_ours(self, name: str) -> bool:
        if name in self._hosts:
            return True
        try:
            # an address can not be rebound, and which of ours a client used does not matter
            return self._is_public and bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _network_location(origin: str) -> str | None:
    """Name and port of an Origin header, or None where it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def send_refusal(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer a request with an error, or a WebSocket upgrade with an HTTP response in its place."""
    prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    body = json.dumps(refusal.body).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **refusal.headers,
    }
    encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": f"{prefix}.start", "status": refusal.status, "headers": encoded})
    await send({"type": f"{prefix}.body", "body": body})
