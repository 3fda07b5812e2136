"""What HTTP requests bring: bodies of a bounded size, read as a model of ours.

Stands before every route that takes JSON: the size is watched while the body comes, whatever its
header says, and each fault is told in the protocol's words.
"""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from daemon.auth import Refusal
from daemon.protocol import ProtocolError, error_from


class RestModel(BaseModel):
    """Something a client posts: no silent conversion, no NaN. What we do not know is left alone:
    clients of many servers send options that belong to another.
    """

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True)


Model = TypeVar("Model", bound=BaseModel)


async def read_model(request: Request, kind: type[Model], *, max_bytes: int) -> Model:
    """The body as a model.

    Raises:
        Refusal: 413, it is too large.
        ProtocolError: it is not valid; names the field.
    """
    body = await read_body(request, max_bytes=max_bytes)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise ProtocolError("The body is not valid JSON.", code="invalid_json") from error
        raise error_from(error) from error


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        Refusal: 413, it is too large; 400, the client went away before its end.
    """
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > max_bytes:
        raise _too_large(max_bytes)
    parts, num_bytes = [], 0
    try:
        async for part in request.stream():
            num_bytes += len(part)
            if num_bytes > max_bytes:
                raise _too_large(max_bytes)
            parts.append(part)
    except ClientDisconnect as error:
        raise Refusal(400, "The request was cut off.", "invalid_request") from error
    return b"".join(parts)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"A request may have {max_bytes} bytes.", "request_too_large")


def body_schema(kind: type[BaseModel]) -> dict[str, object]:
    """What the API's description says of a body that a route reads by itself; `daemon.description`
    moves the parts ("$defs") to where they are referred to.
    """
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
