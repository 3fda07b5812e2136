"""`omnid bench conversation --live` calls a fake server over real WebRTC and the relay."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from daemon.__main__ import main
from pipeline.synthetic import voices

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed"),
]


@pytest.fixture(autouse=True)
def _flite_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "HELD_OUT", (("flite", "awb"),))


def test_a_made_user_calls_a_server(fake_server: Any, capsys: Any) -> None:
    fake_server.script.delay_s, fake_server.script.reply_s = 0.3, 1.0
    flags = ["--live", "--url", fake_server.url, "--users", "1", "--exchanges", "1", "--camera"]
    assert main(["bench", "conversation", *flags, "--networks", "loss 1 %", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = document["setups"]["loss 1 %"]
    assert figures["turns"] >= 1
    assert figures["r_r"] > 0
    assert document["server"]["commit"] == "abc123"
    updates = [event for event in fake_server.seen.events if event["type"] == "session.update"]
    detection = updates[0]["session"]["audio"]["input"]["turn_detection"]
    assert detection == {"type": "semantic_vad", "eagerness": "auto"}
    assert len(fake_server.seen.colours) > 5, "the camera was on"
    assert fake_server.seen.hangups >= 1


def test_no_server_is_one_line(capsys: Any) -> None:
    assert main(["bench", "conversation", "--live", "--url", "http://127.0.0.1:1"]) == 1
    assert "no server at 127.0.0.1:1" in capsys.readouterr().err
