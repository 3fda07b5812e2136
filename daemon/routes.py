"""HTTP and WebSocket routes: the Realtime API, health and metrics, the page."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from daemon import qwen_socket, webrtc, websocket
from daemon.auth import ApiKeys, Refusal
from daemon.client_secrets import ClientSecrets, read_request
from daemon.http_bodies import read_body
from daemon.protocol import ProtocolError, SessionPatch, error_from
from daemon.resume import KeptSessions
from daemon.sessions import Sessions
from pipeline.errors import BadInputError

MAX_SECRET_REQUEST_BYTES = 1 << 20
EXPOSED_HEADERS = ["Location"]

_ASSET_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(self)",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def add_errors(app: FastAPI) -> None:
    """Refusals and unknown addresses as the protocol's error bodies."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body, status_code=refusal.status, headers=refusal.headers)

    @app.exception_handler(ProtocolError)
    async def invalid(_: Request, error: ProtocolError) -> JSONResponse:
        refusal = Refusal.of(error)
        return JSONResponse(refusal.body, status_code=refusal.status)

    @app.exception_handler(BadInputError)
    async def unreadable(_: Request, error: BadInputError) -> JSONResponse:
        refusal = Refusal(400, str(error), error.code, param=error.param)
        return JSONResponse(refusal.body, status_code=refusal.status)

    @app.exception_handler(405)
    async def other_method(request: Request, error: Exception) -> JSONResponse:
        message = f"{request.method} is not for this address."
        refusal = Refusal(405, message, "method_not_allowed")
        headers = getattr(error, "headers", None)
        return JSONResponse(refusal.body, status_code=405, headers=headers)

    @app.exception_handler(404)
    async def unknown(request: Request, _: Exception) -> JSONResponse:
        refusal = Refusal(404, "There is nothing at this address.", "not_found")
        return JSONResponse(refusal.body, status_code=404)


def add_realtime(app: FastAPI, sessions: Sessions, keys: ApiKeys) -> None:
    """The Realtime API."""

    kept = KeptSessions(sessions)

    @app.websocket("/v1/realtime")
    async def realtime(connection: WebSocket) -> None:
        await websocket.serve(connection, sessions, keys, kept)

    @app.websocket("/api-ws/v1/realtime")
    async def qwen(connection: WebSocket) -> None:
        await qwen_socket.serve(connection, sessions, keys)

    # the second path is where older browser clients post their offers
    @app.post("/v1/realtime/calls")
    @app.post("/v1/realtime")
    async def calls(request: Request) -> Response:
        """Answer a WebRTC offer (SDP, or a form with `sdp` and `session`): a call begins."""
        grant = keys.enter(request.headers)
        sessions.rates.take(grant.owner)
        offer, patch = await _read_offer(request, sessions.settings.limits.max_sdp_bytes)
        call_id, sdp = await webrtc.answer(
            offer,
            sessions,
            owner=grant.owner,
            model=request.query_params.get("model"),
            patches=[each for each in (grant.patch, patch) if each is not None],
            has_extensions=websocket.has_extensions(
                request.query_params.get("x-ext"), request.headers.get("x-ext")
            ),
        )
        headers = {"location": f"/v1/realtime/calls/{call_id}"}
        return Response(sdp, status_code=201, media_type="application/sdp", headers=headers)

    @app.post("/v1/realtime/calls/{call_id}/hangup")
    async def hang_up(call_id: str, request: Request) -> Response:
        """End a call."""
        sessions.hang_up(call_id, keys.check(request.headers).owner)
        return Response(status_code=200)

    @app.post("/v1/realtime/sessions")
    @app.post("/v1/realtime/transcription_sessions")
    async def beta(request: Request) -> Response:
        """Gone: these belonged to the protocol's beta."""
        keys.check(request.headers)
        message = "Ephemeral keys are made at /v1/realtime/client_secrets now."
        raise Refusal(410, message, "not_supported")


def add_secrets(app: FastAPI, sessions: Sessions, keys: ApiKeys, secrets: ClientSecrets) -> None:
    """Ephemeral keys."""

    @app.post("/v1/realtime/client_secrets")
    async def client_secrets(request: Request) -> dict[str, Any]:
        """Make an ephemeral key, which carries the session that its holder may begin."""
        grant = keys.check(request.headers)
        sessions.rates.take(grant.owner)
        asked = read_request(await read_body(request, max_bytes=MAX_SECRET_REQUEST_BYTES))
        session = sessions.preview(asked.session)
        secret = secrets.mint(asked, owner=grant.owner)
        view = session.model_dump() | {"expires_at": 0}
        return {"value": secret.value, "expires_at": secret.expires_at, "session": view}


async def _read_offer(request: Request, max_bytes: int) -> tuple[str, SessionPatch | None]:
    """The SDP, and the session's configuration where the offer came as a form with one.

    Raises:
        Refusal: 400 or 413.
        ProtocolError: the configuration is not valid.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise Refusal(411, "The length of the offer is missing.", "invalid_offer", param="sdp")
    if int(length) > max_bytes:
        message = f"An offer may have {max_bytes} bytes."
        raise Refusal(413, message, "invalid_offer", param="sdp")
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return _text(await request.body(), "sdp"), None
    try:
        async with request.form(max_files=2, max_fields=4, max_part_size=max_bytes) as form:
            sdp = await _part(form.get("sdp"), "sdp")
            session = await _part(form.get("session"), "session")
    except MultiPartException as error:
        raise Refusal(400, "The form is malformed.", "invalid_offer") from error
    if not sdp:
        raise Refusal(400, "The form has no 'sdp'.", "invalid_offer", param="sdp")
    return sdp, _read_patch(session) if session else None


async def _part(value: UploadFile | str | None, name: str) -> str:
    if isinstance(value, UploadFile):
        return _text(await value.read(), name)
    return value or ""


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, f"'{name}' is not UTF-8 text.", "invalid_offer", param=name) from error


def _read_patch(text: str) -> SessionPatch:
    try:
        return SessionPatch.model_validate(json.loads(text))
    except ValidationError as error:
        raise error_from(error, "session") from error
    except (ValueError, RecursionError) as error:
        message = "The 'session' part is not valid JSON."
        raise ProtocolError(message, code="invalid_json", param="session") from error


def add_page(app: FastAPI) -> None:
    """The page and its files, as they lie in the package."""

    files = {
        entry.name: entry.read_bytes()
        for entry in resources.files("clients.browser").iterdir()
        if Path(entry.name).suffix in _ASSET_TYPES
    }

    @app.get("/", include_in_schema=False)
    @app.get("/{name}", include_in_schema=False)
    async def page(name: str = "index.html") -> Response:
        # only what was found in the package: no path of a request ever reaches the disk
        data = files.get(name)
        if data is None:
            raise Refusal(404, "There is nothing at this address.", "not_found")
        headers = {**_PAGE_HEADERS, "content-type": _ASSET_TYPES[Path(name).suffix]}
        return Response(data, headers=headers)
