"""What a session leaves in cycles is freed soon after it; what was there before is not walked."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from daemon import garbage


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.ring = self


@pytest.fixture(autouse=True)
def _by_hand() -> object:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


async def test_cycles_are_freed_after_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "DELAY_S", 0.02)
    collector = garbage.Collector()
    for _ in range(2):  # the timer is wound up again after it has fired
        left = weakref.ref(Ring())
        collector.collect_soon()
        collector.collect_soon()
        assert left() is not None
        await asyncio.sleep(0.1)
        assert left() is None


def test_what_lives_at_the_start_is_put_aside() -> None:
    ring = Ring()
    garbage.put_aside()
    assert gc.get_freeze_count() > 0
    assert not any(found is ring for found in gc.get_objects())
