"""Clients that are not ours, unchanged, hold a spoken conversation: two turns, a tool that is
called and whose answer is spoken, and a reply that the user talks over.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from typing import Any

import pytest
from clients_rig import check_played, playing, run_client, run_node, run_python
from daemon_rig import Rig, serving
from environments import HERE
from fake_engine import Script
from PIL import Image

TWO_REPLIES_S = 2 * 8 * 0.08


def check_seen(seen: dict[str, Any]) -> None:
    assert seen["asked"] == ["Rome"]
    assert seen["errors"] == []
    assert seen["heard_s"] == pytest.approx(TWO_REPLIES_S, abs=0.02)


@pytest.mark.parametrize("script", ["openai_sync", "openai_async"])
async def test_openai(script: str) -> None:
    async with playing() as rig:
        seen = await run_client([sys.executable, HERE / "scripts" / f"{script}.py", rig.ws])
        seen["asked"] = [json.loads(each)["city"] for each in seen["asked"]]
        check_seen(seen)
        check_played(rig)


async def test_openai_agents() -> None:
    async with playing() as rig:
        check_seen(await run_python("openai_agents", rig.ws))
        check_played(rig)


async def test_pipecat() -> None:
    async with playing() as rig:
        check_seen(await run_python("pipecat_service", rig.ws))
        check_played(rig, opening="user: Hello", result='"sunny"')


async def test_openai_agents_of_node() -> None:
    async with playing() as rig:
        check_seen(await run_node(rig.ws))
        check_played(rig)


def dialect(rig: Rig) -> str:
    return f"ws://127.0.0.1:{rig.port}/api-ws/v1/realtime"


def jpeg() -> str:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(picture, "JPEG")
    return base64.b64encode(picture.getvalue()).decode()


async def test_dashscope() -> None:
    async with playing() as rig:
        seen = await run_python("dashscope_omni", dialect(rig), jpeg(), "spoken")
        assert seen["errors"] == ["Error append image before append audio."]
        seen["errors"] = []
        seen["asked"] = [json.loads(each)["city"] for each in seen["asked"]]
        check_seen(seen)
        first = rig.engine.contexts[0].story[0]
        assert "frames>" in first, first
        check_played(rig)


async def test_dashscope_by_hand() -> None:
    async with serving(Script(holds_at=3)) as rig:
        seen = await run_python("dashscope_omni", dialect(rig), jpeg(), "by_hand")
        assert seen["session"]["turn_detection"] is None
        assert (seen["errors"], seen["status"], seen["content"]) == ([], "cancelled", "audio")
