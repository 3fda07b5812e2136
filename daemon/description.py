"""What the HTTP routes take, for programs (`/openapi.json`) and for people (`/docs`).

The page is made here of the description, without a script and without anything from elsewhere, so
that it works offline.
"""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

_SUMMARY = (
    "HTTP side of omnid. Conversations by voice go over WebSocket or WebRTC at /v1/realtime, which"
    " speaks the OpenAI Realtime protocol."
)
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;"
    "margin:2rem auto;padding:0 1rem}code,pre{font-family:ui-monospace,monospace}"
    "pre{overflow:auto;padding:1rem;border:1px solid #8886}summary{cursor:pointer}"
)


def add_description(app: FastAPI) -> None:
    """The two routes."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _whole(
                get_openapi(title="omnid", version="1", description=_SUMMARY, routes=app.routes)
            )
        return app.openapi_schema

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return described()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(_page(described()), media_type="text/html", headers=_HEADERS)


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """The description with the parts of all bodies where their references point."""
    parts = schema.setdefault("components", {}).setdefault("schemas", {})
    for methods in schema["paths"].values():
        for route in methods.values():
            for body in route.get("requestBody", {}).get("content", {}).values():
                parts.update(body["schema"].pop("$defs", {}))
    return schema


def _page(schema: dict[str, Any]) -> str:
    routes = [
        _route(method, path, route)
        for path, methods in schema["paths"].items()
        for method, route in methods.items()
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>omnid: HTTP routes</title>'
        f"<style>{_STYLE}</style><h1>omnid: HTTP routes</h1><p>{html.escape(_SUMMARY)}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>{"".join(routes)}</html>'
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    head = f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
    text = f"<p>{html.escape(route.get('description', ''))}</p>"
    content = route.get("requestBody", {}).get("content", {})
    bodies = [
        f"<details><summary>Body: {html.escape(kind)}</summary>"
        f"<pre>{html.escape(json.dumps(body['schema'], indent=2))}</pre></details>"
        for kind, body in content.items()
    ]
    return head + text + "".join(bodies)
