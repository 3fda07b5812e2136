"""What aiortc says of a peer that is gone does not fill the log; all else still comes there."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from daemon import lost_peers


async def forgotten(error: Exception) -> None:
    raise error


async def forget(task: asyncio.Task[None]) -> None:
    """Let it end, and nobody ask how."""
    await asyncio.wait([task])


@pytest.fixture
async def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lost_peers.install(asyncio.get_running_loop())


def tasks_told(caplog: pytest.LogCaptureFixture) -> int:
    gc.collect()
    return sum("never retrieved" in each.getMessage() for each in caplog.records)


@pytest.mark.usefixtures("_quiet")
async def test_a_task_of_aiortc_that_sends_to_nobody_is_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.createDataChannel("oai-events")
    transport = peer.sctp.transport
    for send in (transport._send_data, transport._send_rtp):
        await forget(asyncio.create_task(send(b"words")))
    assert tasks_told(caplog) == 0
    await peer.close()


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    "error",
    [
        ValueError("Cannot send encrypted data, not connected"),
        BrokenPipeError("Cannot send encrypted data, not connected"),
        ConnectionError("something else"),
        ConnectionError("Cannot send encrypted data, not connected"),  # ours, not aiortc's
    ],
)
async def test_other_errors_are_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    await forget(asyncio.create_task(forgotten(error)))
    assert tasks_told(caplog) == 1


async def test_who_handled_the_rest_before_still_does(caplog: pytest.LogCaptureFixture) -> None:
    loop, handled = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: handled.append(context["message"]))
    lost_peers.install(loop)
    await forget(asyncio.create_task(forgotten(ValueError("mine"))))
    gc.collect()
    assert len(handled) == 1
    assert tasks_told(caplog) == 0
