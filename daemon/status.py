"""Routes that tell what is served and how it is: models, liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from daemon import build
from daemon.auth import ApiKeys, Refusal
from daemon.sessions import Sessions, Supervisor


def add_status(app: FastAPI, supervisor: Supervisor, sessions: Sessions, keys: ApiKeys) -> None:
    """See the module's docstring."""
    _add_models(app, sessions, keys)

    @app.get("/health", tags=["status"])
    async def health() -> JSONResponse:
        """Whether the server lives: 503 where only another start can help."""
        is_alive = supervisor.state != "failed"
        return JSONResponse({"is_alive": is_alive}, status_code=200 if is_alive else 503)

    @app.get("/ready", tags=["status"])
    async def ready() -> JSONResponse:
        """Whether to send somebody here: 503 while loading, and while draining."""
        state = "draining" if sessions.places.are_closed else supervisor.state
        return JSONResponse({"state": state}, status_code=200 if state == "ready" else 503)

    @app.get("/healthz", tags=["status"])
    async def report() -> JSONResponse:
        """What runs here, in detail."""
        state, info = supervisor.state, supervisor.info
        found: dict[str, Any] = {"state": state, "model": sessions.model_name, **build.about()}
        if state == "failed":
            found["error"] = supervisor.error
        if info is not None:
            found |= {
                "device": info.device,
                "dtype": info.dtype,
                "is_babbling": info.is_babbling,
                "voices": list(info.voices),
            }
        return JSONResponse(found, status_code=200 if state == "ready" else 503)

    @app.get("/metrics", tags=["status"])
    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        keys.check(request.headers)
        sessions.metrics.engine_ready.set(supervisor.state == "ready")
        sessions.metrics.tasks.set(len(asyncio.all_tasks()))
        return Response(sessions.metrics.render(), media_type="text/plain; version=0.0.4")


def _add_models(app: FastAPI, sessions: Sessions, keys: ApiKeys) -> None:
    began_s = int(time.time())

    def shown() -> dict[str, Any]:
        owner = {"object": "model", "created": began_s, "owned_by": "omnid"}
        return {"id": sessions.model_name, **owner}

    @app.get("/v1/models", tags=["models"])
    async def models(request: Request) -> dict[str, Any]:
        """The one model that is served."""
        keys.check(request.headers)
        return {"object": "list", "data": [shown()]}

    @app.get("/v1/models/{model_id:path}", tags=["models"])
    async def model(model_id: str, request: Request) -> dict[str, Any]:
        """That model, by its name."""
        keys.check(request.headers)
        if model_id != sessions.model_name:
            message = f"The model '{model_id[:80]}' does not exist."
            raise Refusal(404, message, "model_not_found", param="model")
        return shown()
