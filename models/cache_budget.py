"""A bound on the memory of all caches: contexts that rest give theirs up first.

A context without its caches is not lost: its log still holds every token and what the encoders made
of it, so it is prefilled again, in the background, as soon as it is used. Each context for itself
is bounded by the longest log (`EngineOptions.max_context_tokens`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from models.context import Context
from models.devices import describe_device

SHARE = 0.5  # of the memory that is free once the weights are in place


class CacheBudget:
    """See the module's docstring.

    Args:
        devices: where caches lie.
        max_bytes: for all caches together; None: half of what is free on these devices now, of the
        fuller one where they are two.
    """

    def __init__(self, devices: Collection[torch.device], max_bytes: int | None = None) -> None:
        if max_bytes is None:
            max_bytes = int(SHARE * min(describe_device(each).free_bytes for each in devices))
        self.max_bytes = max_bytes
        self._uses = 0
        self._last_use: dict[int, int] = {}

    def use(self, key: int, context: Context) -> None:
        """A context is wanted: its caches are filled again if they were given up."""
        self._uses += 1
        self._last_use[key] = self._uses
        context.is_resting = False

    def enforce(self, contexts: Mapping[int, Context], *, at_work: int) -> list[int]:
        """Free caches of contexts without a reply, longest unused first, until the rest fits.

        Returns their keys. The one `at_work` keeps its own, whatever they take.
        """
        self._last_use = {key: use for key, use in self._last_use.items() if key in contexts}
        total = sum(context.cache_bytes for context in contexts.values())
        freed: list[int] = []
        for key in sorted(contexts, key=lambda key: self._last_use.get(key, 0)):
            if total <= self.max_bytes:
                break
            context = contexts[key]
            if key != at_work and context.active_reply is None and not context.is_resting:
                total -= context.cache_bytes
                context.rest()
                total += context.cache_bytes
                freed.append(key)
        return freed
