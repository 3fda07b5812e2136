"""What may be chosen about an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.encoding import WindowPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Choices of an engine's owner.

    `prefill_tokens`: most tokens of one prefill unit (others wait so long). `max_context_tokens`:
    of one context; None: the model's own limit. `max_cache_bytes`: of all contexts together; None:
    half of the memory that is free once the weights are in place. `windows`: attention windows of
    the audio encoder while people speak. `speaks_by_steps`: speech frames by `models.stepping`, on
    a GPU as graphs of fused kernels.
    """

    prefill_tokens: int = 512
    max_context_tokens: int | None = None
    max_cache_bytes: int | None = None
    windows: WindowPolicy = field(default_factory=WindowPolicy)
    speaks_by_steps: bool = False


DEFAULT_OPTIONS = EngineOptions()
