"""Times whole steps of many sessions: a text token, a speech frame, and their parts together."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from models.config import OmniConfig
from models.graphs import pick_capture
from models.qwen3_omni.model import Qwen3Omni
from models.sampling import SamplingSettings
from models.stepping.operations import Operations
from models.stepping.pages import PAGE_SIZE, PagedCache, PagePool, PageTable
from models.stepping.speech_slots import SpeechSlots
from models.stepping.speech_step import SpeechStep
from models.stepping.text_step import TextDraw, TextRow, TextStep

CONTEXT_TOKENS = 512
ROOM_TOKENS = 128
CODES = SamplingSettings(temperature=0.9, top_k=50, repetition_penalty=1.05)
RESIDUALS = SamplingSettings(top_k=50, top_p=0.8)


class StepBench:
    """Sessions whose caches are as if `CONTEXT_TOKENS` had been prefilled (zeros cost the same)."""

    def __init__(
        self,
        model: Qwen3Omni,
        config: OmniConfig,
        operations: Operations,
        graphs: str,
        max_sessions: int,
    ) -> None:
        assert model.talker is not None
        assert model.code2wav is not None
        weight = model.thinker.lm_head.weight
        self.device = weight.device
        pages = (CONTEXT_TOKENS + ROOM_TOKENS) // PAGE_SIZE
        assert config.talker is not None
        num_rows = max_sessions + 1
        self.table, talker_table = (
            PageTable(
                PagePool(
                    decoder,
                    num_pages=1 + max_sessions * pages,
                    device=self.device,
                    dtype=weight.dtype,
                ),
                num_rows=num_rows,
                max_pages=pages,
            )
            for decoder in (config.thinker.decoder, config.talker.decoder)
        )
        self.slots = SpeechSlots(model.talker, model.code2wav, talker_table, num_slots=num_rows)
        capture = pick_capture(self.device, graphs)
        self.speech = SpeechStep(model, self.slots, operations, capture)
        self.text = TextStep(model.thinker, self.table, operations, capture)
        self.max_sessions = max_sessions

    def measure(self, count: int, repeats: int) -> dict[str, float]:
        """Medians over `repeats` steps of `count` sessions; the host waits for each result."""
        heard = [self._filled(self.table) for _ in range(count)]
        spoken = [self._begin(slot) for slot in range(1, count + 1)]
        slots = list(range(1, count + 1))
        text = [self.slots.hidden[0]] * count
        first = self._timed(lambda: self.speech.first(slots).read(), 1)
        frame = self._timed(lambda: self.speech.next(slots, text).read(), repeats)
        rows = [
            TextRow(
                row=cache.row,
                token=100,
                length=CONTEXT_TOKENS,
                position=float(CONTEXT_TOKENS),
                draw=TextDraw(settings=SamplingSettings(top_k=50)),
            )
            for cache in heard
        ]
        token = self._timed(lambda: self.text(rows), repeats)
        for cache in heard + spoken:
            cache.release()
        return {
            "first_frame_ms": first,
            "frame_ms": frame,
            "token_ms": token,
            "audio_s_per_s": round(80.0 * count / frame, 2),
        }

    def _begin(self, slot: int) -> PagedCache:
        cache = self._filled(self.slots.table)
        self.slots.begin(
            slot,
            row=cache.row,
            settings=(CODES, RESIDUALS),
            seed=slot,
            length=CONTEXT_TOKENS,
            position=float(CONTEXT_TOKENS),
            hidden=self.slots.hidden[0],
        )
        return cache

    def _filled(self, table: PageTable) -> PagedCache:
        cache = PagedCache(table)
        cache.reserve(CONTEXT_TOKENS + ROOM_TOKENS)
        cache.advance(CONTEXT_TOKENS)
        return cache

    def _timed(self, step: Callable[[], object], repeats: int) -> float:
        """Median milliseconds; one step goes before (it compiles and captures)."""
        times = []
        for _ in range(1 + repeats):
            started = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - started))
        return round(statistics.median(times[1:]), 3)
