"""What an engine that works by steps has: pages for the caches of all its contexts, and the steps
over them, for text tokens and for speech frames.

The pages are taken once, as many as the bound on all caches allows, and shared: a context holds
what its positions need, rounded up to a page of each decoder. Where they run short, `when_short`
says whose are given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch

from models.errors import ResourceError
from models.graphs import pick_capture, sizes_for
from models.memory_plan import kv_bytes_per_token
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.thinker import Thinker
from models.stepping.operations import pick_operations
from models.stepping.pages import PAGE_SIZE, PagedCache, PagePool, PageTable
from models.stepping.stepped_voice import SteppedVoices
from models.stepping.text_step import TextStep

logger = logging.getLogger(__name__)

NUM_ROWS = 257  # contexts that hold pages at once, and nobody's
PREFIX_TOKENS = 9  # before the first frame of a reply


class EngineSteps:
    """See the module's docstring.

    Args:
        max_bytes: of all pages together. max_tokens: of one context. max_frames: of one reply.
        max_batch: rows of a step. max_first: of one that begins replies.

    Attributes:
        text: the thinker's steps. voices: None where the checkpoint has no speech.

    Raises:
        ResourceError: the model lies on several devices, or the pages do not fit one context.
    """

    def __init__(
        self,
        model: Qwen3Omni,
        *,
        max_bytes: int,
        max_tokens: int,
        max_frames: int,
        max_batch: int,
        max_first: int,
    ) -> None:
        stages = [stage for stage in (model.thinker, model.talker, model.code2wav) if stage]
        device = model.thinker.device
        if any(stage.device != device for stage in stages):
            raise ResourceError("work by steps needs all of the model on one device")
        operations, capture = pick_operations(device), pick_capture(device)
        sizes = sizes_for(max_batch)
        num_pages = max_bytes // (PAGE_SIZE * _bytes_per_token(model))
        self._thinker = _table(model.thinker, num_pages, max_tokens)
        self.text = TextStep(model.thinker, self._thinker, operations, capture, sizes)
        self._talker: PageTable | None = None
        self.voices: SteppedVoices | None = None
        if model.talker is not None:
            most = max_tokens + PREFIX_TOKENS + max_frames
            self._talker = _table(model.talker, num_pages, most)
            first_sizes = sizes_for(min(max_first, max_batch))
            self.voices = SteppedVoices(
                model, self._talker, operations, capture, sizes, first_sizes
            )

    @property
    def tables(self) -> tuple[PageTable, ...]:
        """The thinker's and, where there is one, the talker's."""
        return (self._thinker,) if self._talker is None else (self._thinker, self._talker)

    def caches(self) -> tuple[PagedCache, PagedCache | None]:
        """A new context's: the thinker's and the talker's."""
        return (
            PagedCache(self._thinker),
            None if self._talker is None else PagedCache(self._talker),
        )

    def when_short(self, free: Callable[[PagePool, int], object]) -> None:
        """Name who frees pages: `free(pool, count)` is asked to have so many free."""
        for table in self.tables:
            table.pool.when_short = partial(free, table.pool)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Build all steps (on a GPU: compile and capture them), before anybody waits for one."""
        self.text.prepare()
        if self.voices is not None:
            self.voices.step.prepare()


def prepared(
    build: Callable[[], EngineSteps], device: torch.device, *, by_steps: bool | None
) -> EngineSteps | None:
    """An engine's steps, ready; None where it works without.

    by_steps: None: on a GPU, unless they can not be had there, which is told in the log.

    Raises:
        ResourceError: they were asked for and can not be had.
    """
    if by_steps is False or (by_steps is None and device.type != "cuda"):
        return None
    try:
        steps = build()
        steps.prepare()
    except Exception as error:
        if by_steps:
            raise
        logger.warning("works without graphs, slower: %s", str(error).partition("\n")[0])
        return None
    return steps


def _bytes_per_token(model: Qwen3Omni) -> int:
    """Of one position in all decoders; the talker's are no more than the thinker's."""
    dtype = model.thinker.lm_head.weight.dtype
    decoders = [stage.model for stage in (model.thinker, model.talker) if stage is not None]
    return sum(kv_bytes_per_token(decoder.config, dtype) for decoder in decoders)


def _table(stage: Thinker | Talker, num_pages: int, max_tokens: int) -> PageTable:
    config = stage.model.config
    max_pages = -(-min(max_tokens, config.max_positions) // PAGE_SIZE)
    pool = PagePool(
        config,
        num_pages=1 + min(num_pages, (NUM_ROWS - 1) * max_pages),
        device=stage.device,
        dtype=stage.model.norm.weight.dtype,
    )
    return PageTable(pool, num_rows=NUM_ROWS, max_pages=max_pages)
