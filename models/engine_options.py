"""What may be chosen about an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from models.encoding import WindowPolicy
from models.errors import RequestError

MAX_BATCH = 32
GRAPHS = {"auto": None, "on": True, "off": False}  # what `by_steps` is called by its users
CPU_BATCH = 8  # more sessions at once gain little there, and would make the first of them wait


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Choices of an engine's owner.

    `prefill_tokens`: most tokens of one prefill unit (others wait so long). `max_context_tokens`:
    of one context; None: the model's own limit. `max_cache_bytes`: of all contexts together; None:
    half of the memory that is free once the weights are in place. `windows`: attention windows of
    the audio encoder while people speak. `by_steps`: text tokens and speech frames by
    `models.stepping`, with paged caches; on a GPU as graphs of fused kernels; None: where one GPU
    holds the model, if its steps can be built there. `max_batch`: sessions whose tokens or frames
    are made at once, 1 to `MAX_BATCH`; None: as many as pay on the device.
    """

    prefill_tokens: int = 512
    max_context_tokens: int | None = None
    max_cache_bytes: int | None = None
    windows: WindowPolicy = field(default_factory=WindowPolicy)
    by_steps: bool | None = False
    max_batch: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: `max_batch` is outside its range.
        """
        if self.max_batch is not None and not 1 <= self.max_batch <= MAX_BATCH:
            raise RequestError(f"max_batch is {self.max_batch}; it must be 1 to {MAX_BATCH}")

    def batch_on(self, device: torch.device) -> int:
        """`max_batch` of an engine on this device."""
        usual = CPU_BATCH if device.type == "cpu" else MAX_BATCH
        return usual if self.max_batch is None else self.max_batch


DEFAULT_OPTIONS = EngineOptions()
