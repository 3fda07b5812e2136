"""The timer is wound up while work goes on, not at every step, and stands while there is none."""

from __future__ import annotations

import faulthandler

import pytest

from pipeline.watchdog import CHECKS, Watchdog


def test_the_timer_is_wound_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda limit_s, **_: told.append(f"in {limit_s}")
    )
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: told.append("never"))
    now_s = 0.0
    watchdog = Watchdog(80.0, clock=lambda: now_s)
    watchdog.rest()
    assert told == []
    watchdog.alive()
    now_s = 80.0 / CHECKS - 0.1
    watchdog.alive()
    assert told == ["in 80.0"]
    now_s += 0.2
    watchdog.alive()
    assert told == ["in 80.0", "in 80.0"]
    watchdog.rest()
    watchdog.rest()
    assert told[2:] == ["never"]
    watchdog.alive()
    assert told[3:] == ["in 80.0"]
