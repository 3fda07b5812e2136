"""A response that fails says by what (sections 13.1 and 17), and the session lives on."""

from __future__ import annotations

import pytest
from daemon_rig import serving
from fake_engine import Script
from wire_client import wire

from pipeline.messages import Refusal


@pytest.mark.parametrize("is_aside", [False, True])
@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        (None, "server_error", "server_error"),
        ("request", "invalid_request_error", "invalid_value"),
        ("context_full", "invalid_request_error", "context_length_exceeded"),
        ("overloaded", "rate_limit_error", "rate_limit_exceeded"),
        ("tool_call", "server_error", "invalid_tool_arguments"),
    ],
)
async def test_a_failure_has_the_code_of_its_cause(
    refusal: Refusal | None, kind: str, code: str, is_aside: bool
) -> None:
    script = Script(words=(), num_frames=0, status="failed", error="it went so", refusal=refusal)
    async with serving(script) as rig, wire(rig) as client:
        events = await client.reply(**({"conversation": "none"} if is_aside else {}))
        details = events[-2]["response"]["status_details"]
        error = {"type": kind, "code": code, "message": "it went so"}
        assert details == {"type": "failed", "error": error}
        await client.check_open()
