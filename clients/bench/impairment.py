"""What a bad network does to packets, one direction, sans-I/O and deterministic from its seed.

The caller says when a packet comes in and gets the moments at which it comes out: none (lost), one,
or two (doubled). Each packet takes the same number of draws, whatever happens to it, so that the
fate of the n-th packet depends on the seed and on n alone, never on timing.

Loss is Gilbert's model: a good and a bad state, everything is lost in the bad one. With a mean
burst of one packet it is independent loss.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One direction of a network.

    Args:
        delay_ms / jitter_ms: each packet takes `delay_ms` plus or minus up to `jitter_ms`, evenly.
        loss: share of packets lost. mean_burst: packets lost in a row, on average.
        doubled: share of packets that come twice.
        keeps_order: a packet never overtakes an earlier one.
        rate_kbps: 0 is unlimited. max_queue_ms: what a slow link holds before it drops.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    mean_burst: float = 1.0
    doubled: float = 0.0
    keeps_order: bool = False
    rate_kbps: float = 0.0
    max_queue_ms: float = 500.0

    def __post_init__(self) -> None:
        shares = (self.loss, self.doubled)
        if not all(0 <= share < 1 for share in shares) or self.mean_burst < 1:
            raise ValueError(f"shares must be in [0, 1), a burst is at least one packet: {self}")
        if self.jitter_ms > self.delay_ms or min(self.jitter_ms, self.rate_kbps) < 0:
            raise ValueError(f"a packet can not come before it was sent: {self}")


CLEAN = Condition()
NETWORKS = {
    "clean": CLEAN,
    "loss 1 %": Condition(delay_ms=40, jitter_ms=20, loss=0.01),
    "loss 5 %": Condition(delay_ms=40, jitter_ms=20, loss=0.05),
    "bursts": Condition(delay_ms=40, jitter_ms=20, loss=0.05, mean_burst=4),
    "far": Condition(delay_ms=120, jitter_ms=30, loss=0.01, doubled=0.01),
    "slow": Condition(delay_ms=40, jitter_ms=20, rate_kbps=160),
}


class Impairment:
    """One direction, from now on: the condition may change, the draws go on."""

    def __init__(self, *, seed: int | str, condition: Condition = CLEAN) -> None:
        self.condition = condition
        self._rng = random.Random(seed)
        self._is_bad = False
        self._free_s = -math.inf
        self._newest_out_s = -math.inf

    def arrivals_s(self, now_s: float, num_bytes: int) -> list[float]:
        """When a packet that is sent now comes out."""
        condition = self.condition
        state, jitter, twice = self._rng.random(), self._rng.uniform(-1, 1), self._rng.random()
        self._step(state)
        if self._is_bad:
            return []
        sent_s = self._through_link(now_s, num_bytes)
        if sent_s is None:
            return []
        out_s = sent_s + (condition.delay_ms + jitter * condition.jitter_ms) / 1000
        if condition.keeps_order:
            out_s = max(out_s, self._newest_out_s)
        self._newest_out_s = max(out_s, self._newest_out_s)
        return [out_s, out_s] if twice < condition.doubled else [out_s]

    def _step(self, draw: float) -> None:
        """To the next state, so that the share of bad ones and their mean run are as wanted."""
        condition = self.condition
        leave_bad = 1 / condition.mean_burst
        enter_bad = condition.loss * leave_bad / (1 - condition.loss)
        if condition.mean_burst == 1:
            self._is_bad = draw < condition.loss
        else:
            self._is_bad = draw >= leave_bad if self._is_bad else draw < enter_bad

    def _through_link(self, now_s: float, num_bytes: int) -> float | None:
        """When the last bit has left a link of limited rate; None where its queue is full."""
        if not self.condition.rate_kbps:
            return now_s
        start_s = max(now_s, self._free_s)
        if start_s - now_s > self.condition.max_queue_ms / 1000:
            return None
        self._free_s = start_s + num_bytes * 8 / (self.condition.rate_kbps * 1000)
        return self._free_s
