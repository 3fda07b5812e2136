"""Ephemeral keys: short-lived, each carrying the session that its user may begin.

An application's own server asks for one with its API key and hands it to a browser. Only digests
are kept, in memory: a restart forgets them all. Expiry ends nothing that runs. Bounds: how many are
valid at once and how much their sessions hold, of an API key and of all.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field, ValidationError

from daemon.auth import EPHEMERAL_PREFIX, Grant, Refusal, digest
from daemon.protocol import ProtocolError, SessionPatch, error_from
from daemon.protocol_base import ClientModel

MAX_SECRETS = 10_000
MAX_SECRETS_OF_OWNER = 2_000
MAX_BYTES_OF_OWNER = 8 << 20  # of the sessions that they carry
MAX_BYTES = 64 << 20


class ExpiresAfter(ClientModel):
    """`expires_after`"""

    anchor: str = Field(default="created_at", pattern="^created_at$")
    seconds: int = Field(default=600, ge=10, le=7_200)


class SecretRequest(ClientModel):
    """What a new secret shall be."""

    expires_after: ExpiresAfter | None = None
    session: SessionPatch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A new secret: the only moment at which its value is known."""

    value: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class _Kept:
    expires_at: int
    patch: SessionPatch | None
    owner: str
    num_bytes: int


class ClientSecrets:
    """The secrets that may still be used. `now_s`: seconds since 1970."""

    def __init__(self, *, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._kept: dict[bytes, _Kept] = {}

    def mint(self, request: SecretRequest, *, owner: str = "") -> Secret:
        """A new secret; `owner`: whose limits its users share.

        Raises:
            Refusal: 429, the owner's share is used up; 503, everybody's is.
        """
        self._forget_expired()
        num_bytes = 0 if request.session is None else _num_bytes(request.session)
        self._check_room(owner, num_bytes)
        seconds = (request.expires_after or ExpiresAfter()).seconds
        value, expires_at = (
            EPHEMERAL_PREFIX + secrets.token_urlsafe(32),
            int(self._now_s()) + seconds,
        )
        self._kept[digest(value)] = _Kept(expires_at, request.session, owner, num_bytes)
        return Secret(value=value, expires_at=expires_at)

    def grant(self, value: str) -> Grant | None:
        """What the holder of a secret may do; None: it is unknown or has expired."""
        self._forget_expired()
        kept = self._kept.get(digest(value))
        if kept is None:
            return None
        return Grant(is_ephemeral=True, patch=kept.patch, owner=kept.owner)

    def _check_room(self, owner: str, num_bytes: int) -> None:
        everybodys = [kept.num_bytes for kept in self._kept.values()]
        owners = [kept.num_bytes for kept in self._kept.values() if kept.owner == owner]
        for status, sizes, max_secrets, max_bytes in (
            (429, owners, MAX_SECRETS_OF_OWNER, MAX_BYTES_OF_OWNER),
            (503, everybodys, MAX_SECRETS, MAX_BYTES),
        ):
            if len(sizes) >= max_secrets or sum(sizes) + num_bytes > max_bytes:
                message = "Too many client secrets are valid."
                raise Refusal(status, message, "too_many_secrets", retry_after_s=10)

    def _forget_expired(self) -> None:
        now_s = self._now_s()
        for key in [key for key, kept in self._kept.items() if kept.expires_at <= now_s]:
            del self._kept[key]


def _num_bytes(session: SessionPatch) -> int:
    """What a session's configuration holds, near enough."""
    return len(session.model_dump_json(exclude_unset=True))


def read_request(body: bytes) -> SecretRequest:
    """The body of a request for a secret; none asks for all defaults.

    Raises:
        ProtocolError: it is not valid; names the field.
    """
    try:
        return SecretRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise ProtocolError("The body is not valid JSON.", code="invalid_json") from error
        raise error_from(error) from error
