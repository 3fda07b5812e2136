"""Clients that are not ours, unchanged, hold a spoken conversation: two turns, a tool that is
called and whose answer is spoken, and a reply that the user talks over.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from clients_rig import check_played, playing, run_client, run_node, run_python
from environments import HERE

TWO_REPLIES_S = 2 * 8 * 0.08


def check_seen(seen: dict[str, Any]) -> None:
    assert seen["asked"] == ["Rome"]
    assert seen["errors"] == []
    assert seen["heard_s"] == pytest.approx(TWO_REPLIES_S, abs=0.02)


async def test_openai_without_asyncio() -> None:
    async with playing() as rig:
        seen = await run_client([sys.executable, HERE / "scripts" / "openai_sync.py", rig.ws])
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
