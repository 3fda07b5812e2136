"""Where a server is: its URLs, its key, and plain HTTP requests to it (in a thread)."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from clients.bench.errors import BenchError

HTTP_TIMEOUT_S = 15.0
_SECURE = {"http": False, "ws": False, "https": True, "wss": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A Realtime server. `base` is `host:port` with whatever path stands before `/v1`."""

    base: str
    is_secure: bool
    model: str
    api_key: str | None
    is_insecure: bool

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return (urlsplit(f"//{self.base}").hostname or "") in ("localhost", "127.0.0.1", "::1")

    @property
    def websocket_url(self) -> str:
        """Of a new session, with our extensions asked for."""
        return f"{'wss' if self.is_secure else 'ws'}://{self.base}/v1/realtime?{self._query}"

    @property
    def calls_url(self) -> str:
        """Where an SDP offer is posted, with our extensions asked for."""
        return f"{self._http}/v1/realtime/calls?{self._query}"

    @property
    def health_url(self) -> str:
        """Of the health report, which only our own server has."""
        return f"{self._http}/healthz"

    @property
    def metrics_url(self) -> str:
        """Of what an operator's monitor reads, which only our own server has."""
        return f"{self._http}/metrics"

    @property
    def headers(self) -> dict[str, str]:
        """The key, if there is one."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @property
    def tls(self) -> ssl.SSLContext | None:
        """None for plain connections."""
        if not self.is_secure:
            return None
        context = ssl.create_default_context()
        if self.is_insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def absolute(self, location: str) -> str:
        """A `Location` header as a URL."""
        return f"{self._http}{location}" if location.startswith("/") else location

    @property
    def _http(self) -> str:
        return f"{'https' if self.is_secure else 'http'}://{self.base}"

    @property
    def _query(self) -> str:
        return f"model={quote(self.model)}&x-ext=1"


def parse_address(url: str, *, model: str, api_key: str | None, is_insecure: bool) -> Address:
    """From what people type: with or without scheme, path `/v1` or `/v1/realtime`.

    Raises:
        BenchError: not a URL of HTTP or WebSocket.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "http", url
    base = rest.split("?")[0].rstrip("/").removesuffix("/realtime").removesuffix("/v1")
    if scheme not in _SECURE or not base:
        raise BenchError(f"--url {url}: must be http(s)://host:port or ws(s)://host:port")
    return Address(
        base=base, is_secure=_SECURE[scheme], model=model, api_key=api_key, is_insecure=is_insecure
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: str
    location: str | None


async def request(
    address: Address, url: str, *, form: Mapping[str, str] | None = None, is_post: bool = False
) -> Reply:
    """GET, or POST of `form` as multipart. Any HTTP status is an answer.

    Raises:
        BenchError: no server there.
    """
    headers = dict(address.headers)
    data = b"" if is_post else None
    if form is not None:
        boundary = uuid.uuid4().hex
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        data = _multipart(form, boundary)
    ask = urllib.request.Request(url, data=data, headers=headers)
    return await asyncio.to_thread(_request, address, ask)


def _request(address: Address, ask: urllib.request.Request) -> Reply:
    try:
        with urllib.request.urlopen(ask, timeout=HTTP_TIMEOUT_S, context=address.tls) as answer:
            location = answer.headers.get("Location")
            return Reply(status=answer.status, body=answer.read().decode(), location=location)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(
                status=error.code, body=error.read().decode(errors="replace"), location=None
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BenchError(f"no server at {address.base} ({reason})") from error


def _multipart(form: Mapping[str, str], boundary: str) -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form.items()
    ]
    return ("".join(parts) + f"--{boundary}--\r\n").encode()


async def ask_health(address: Address) -> Mapping[str, Any]:
    """What the server tells of itself; empty for servers without such a report.

    Raises:
        BenchError: no server there.
    """
    reply = await request(address, address.health_url)
    try:
        health = json.loads(reply.body)
    except json.JSONDecodeError:
        return {}
    return health if isinstance(health, dict) else {}


def refusal(status: int, body: str) -> str:
    """An HTTP refusal in one line."""
    try:
        message = json.loads(body)["error"]["message"]
    except (json.JSONDecodeError, KeyError, TypeError):
        message = body.strip().splitlines()[0][:200] if body.strip() else "no reason given"
    return f"the server refused the session with status {status}: {message}"
