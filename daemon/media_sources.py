"""Where the media of a request are: in it, as `data:` URLs, or behind an address that it names.

An address is asked for only where the settings allow its host: a server that fetches whatever it
is told to reaches what its clients can not. A redirect is not followed for the same reason.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import urlsplit

from daemon.images import decode_base64
from pipeline.errors import BadInputError

FETCH_TIMEOUT_S = 10.0
MAX_DATA_HEADER_CHARS = 200


async def media_bytes(url: str, *, hosts: Sequence[str], max_bytes: int, param: str) -> bytes:
    """The bytes of a `data:` URL (base64), or of an address whose host is one of `hosts`.

    Raises:
        BadInputError: another kind of URL, a host that is not listed, too long, or out of reach.
    """
    scheme = url[:8].lower()
    if scheme.startswith("data:"):
        header, comma, data = url.partition(",")
        if not comma or len(header) > MAX_DATA_HEADER_CHARS or ";base64" not in header.lower():
            raise BadInputError("A data: URL needs ';base64,' and its data.", param=param)
        return await asyncio.to_thread(decode_base64, data, max_bytes=max_bytes, param=param)
    if not scheme.startswith(("http://", "https://")):
        raise BadInputError("Media must be data: URLs.", param=param)
    host = _host_of(url)
    if host is None or host not in {name.lower() for name in hosts}:
        raise BadInputError(
            "Media must be data: URLs: this server does not fetch from that host.",
            code="url_not_allowed",
            param=param,
        )
    return await asyncio.to_thread(_fetch, url, max_bytes, param)


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect may lead to a host that is not listed."""


def _fetch(url: str, max_bytes: int, param: str) -> bytes:
    # no proxy of the environment: it would be asked instead of the host that was checked
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=FETCH_TIMEOUT_S) as answer:
            data = _read(answer, max_bytes)
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        message = "The address could not be fetched."
        raise BadInputError(message, code="url_not_reachable", param=param) from error
    if len(data) > max_bytes:
        raise BadInputError(f"More than {max_bytes} bytes.", param=param)
    return data


def _read(answer: IO[bytes], max_bytes: int) -> bytes:
    return answer.read(max_bytes + 1)
