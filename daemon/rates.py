"""How often a key may ask: a bucket of requests for each, refilled steadily."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.auth import Refusal

MAX_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    num_left: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLeft:
    """A limit, what is left of it, and when it will be whole again."""

    limit: int
    remaining: int
    reset_seconds: float


class RequestRates:
    """The requests of each key. `per_minute`: 0 is no limit; so many may come at once."""

    def __init__(self, per_minute: int, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now_s = now_s
        self._buckets: dict[str, _Bucket] = {}

    def take(self, owner: str) -> None:
        """Count a request of an owner.

        Raises:
            Refusal: 429, there were too many.
        """
        if not self._per_minute:
            return
        bucket = self._refilled(owner)
        if bucket.num_left < 1:
            wait_s = math.ceil((1 - bucket.num_left) * 60 / self._per_minute)
            message = f"More than {self._per_minute} requests a minute."
            raise Refusal(429, message, "rate_limit_exceeded", retry_after_s=wait_s)
        bucket.num_left -= 1

    def left(self, owner: str) -> RateLeft | None:
        """How many requests of an owner may come now; None: they are not limited."""
        if not self._per_minute:
            return None
        num_left = self._refilled(owner).num_left
        return RateLeft(
            limit=self._per_minute,
            remaining=int(num_left),
            reset_seconds=round((self._per_minute - num_left) * 60 / self._per_minute, 1),
        )

    def _refilled(self, owner: str) -> _Bucket:
        now_s = self._now_s()
        bucket = self._buckets.get(owner) or self._new_bucket(owner, now_s)
        refilled = (now_s - bucket.at_s) * self._per_minute / 60
        bucket.num_left = min(self._per_minute, bucket.num_left + refilled)
        bucket.at_s = now_s
        return bucket

    def _new_bucket(self, owner: str, now_s: float) -> _Bucket:
        if len(self._buckets) >= MAX_BUCKETS:  # those that are full again need no memory
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if now_s - bucket.at_s < 60
            }
        bucket = self._buckets[owner] = _Bucket(self._per_minute, now_s)
        return bucket
