"""A bound on the memory of all caches: contexts that rest give theirs up first, from the end.

A context without its caches is not lost: its log still holds every token and what the encoders made
of it, so it is prefilled again, in the background, as soon as it is used. What comes later in a
context rests on what came before, never the reverse: so the last tokens go, only as many as must,
and the rest need not be made again. Each context for itself is bounded by the longest log
(`EngineOptions.max_context_tokens`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from threading import Lock

import torch

from models.context import Context
from models.devices import describe_device
from models.stepping.pages import PagePool

SHARE = 0.5  # of the memory that is free once the weights are in place
GIVEN_UP_TOKENS = 512  # at a time: a multiple of what memory is taken by


class CacheBudget:
    """See the module's docstring.

    Args:
        devices: where caches lie.
        max_bytes: for all caches together; None: half of what is free on these devices now, of the
        fuller one where they are two.

    Attributes:
        at_work: the context that keeps its own, whatever they take; None: there is none.
    """

    def __init__(self, devices: Collection[torch.device], max_bytes: int | None = None) -> None:
        if max_bytes is None:
            max_bytes = int(SHARE * min(describe_device(each).free_bytes for each in devices))
        self.max_bytes = max_bytes
        self.at_work: int | None = None
        self._lock = Lock()  # tokens and frames, made at the same time, may both run short
        self._uses = 0
        self._last_use: dict[int, int] = {}

    def use(self, key: int, context: Context) -> None:
        """A context is wanted: its caches are filled again if they were given up."""
        self._uses += 1
        self._last_use[key] = self._uses
        context.is_resting = False

    def enforce(self, contexts: Mapping[int, Context]) -> list[int]:
        """Free caches of contexts without a reply, longest unused first, until the rest fits.

        Returns their keys.
        """
        return self._free(contexts, lambda: _num_bytes(contexts) <= self.max_bytes)

    def free_pages(self, contexts: Mapping[int, Context], pool: PagePool, count: int) -> list[int]:
        """The same until so many pages of a pool are free, if there are so many."""
        return self._free(contexts, lambda: pool.num_free >= count)

    def _free(self, contexts: Mapping[int, Context], is_enough: Callable[[], bool]) -> list[int]:
        freed: list[int] = []
        with self._lock:
            self._last_use = {key: use for key, use in self._last_use.items() if key in contexts}
            for key in sorted(contexts, key=lambda key: self._last_use.get(key, 0)):
                context = contexts[key]
                if key == self.at_work or context.active_reply is not None:
                    continue
                while context.cache_bytes and not is_enough():
                    context.rest((context.thinker_cache.length - 1) % GIVEN_UP_TOKENS + 1)
                    if key not in freed:
                        freed.append(key)
        return freed


def _num_bytes(contexts: Mapping[int, Context]) -> int:
    return sum(context.cache_bytes for context in contexts.values())
