"""The voice of one reply by steps on the device: `models.speaking.Voice` with other means.

The reply's prefix is prefilled as ever, into the talker's pages; then every frame is a step.
Replies beyond the slots speak by the plain voice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from models.graphs import Capture
from models.qwen3_omni.model import Qwen3Omni
from models.speaking import Voice
from models.stepping.operations import Operations
from models.stepping.pages import PagedCache, PageTable
from models.stepping.speech_slots import SpeechSlots
from models.stepping.speech_step import SpeechStep

NUM_SLOTS = 33  # 32 replies, and nobody's


class SteppedVoices:
    """The slots of one engine and the steps over them; `table` has the talker's caches.

    Args:
        sizes: batch sizes of steps. first_sizes: of those that begin replies.
    """

    def __init__(
        self,
        model: Qwen3Omni,
        table: PageTable,
        operations: Operations,
        capture: Capture,
        sizes: Sequence[int],
        first_sizes: Sequence[int],
    ) -> None:
        assert model.talker is not None
        assert model.code2wav is not None
        self.slots = SpeechSlots(model.talker, model.code2wav, table, num_slots=NUM_SLOTS)
        self.step = SpeechStep(model, self.slots, operations, capture, sizes, first_sizes)

    def voice(self, **voice: Any) -> Voice:
        """A voice by steps, or a plain one where no slot is free; `voice` is `Voice`'s."""
        slot = self.slots.take()
        return Voice(**voice) if slot is None else SteppedVoice(self, slot, **voice)


class SteppedVoice(Voice):
    """See the module's docstring."""

    def __init__(
        self, voices: SteppedVoices, slot: int, *, cache: PagedCache, **voice: Any
    ) -> None:
        super().__init__(cache=cache, **voice)
        self._slots, self._step, self._slot = voices.slots, voices.step, slot
        self._paged = cache
        self._num_codes = 0
        self._made = torch.zeros(0)

    @classmethod
    def next_frames(
        cls, voices: Sequence[Self], tokens: Sequence[int | None]
    ) -> list[tuple[int, ...] | None]:
        """As `Voice.next_frames`; the samples come with the codes."""
        step, slots = voices[0]._step, [voice._slot for voice in voices]
        if voices[0]._num_codes == 0:
            for voice, hidden in zip(voices, cls._start(voices, tokens), strict=True):
                voice._begin(hidden)
            frames = step.first(slots)
        else:
            frames = step.next(slots, cls._tails(voices, tokens).unbind())
            for voice in voices:
                voice._paged.advance(1)
        rows = zip(voices, *frames.read(), strict=True)  # where the host waits for the device
        return [voice._take(codes, pcm) for voice, codes, pcm in rows]

    @classmethod
    def pcms(cls, voices: Sequence[Self]) -> list[Tensor]:
        """As `Voice.pcms`, on the host."""
        return [voice._made for voice in voices]

    def _take(self, codes: list[int], pcm: Tensor) -> tuple[int, ...] | None:
        self._num_codes += 1
        is_end = codes[0] == self._talker.config.codec_eos_id
        if is_end or self._num_codes >= self._max_codes:
            return None
        self._made = pcm
        self.num_frames += 1
        return tuple(codes)

    def close(self) -> None:
        """Let the slot go, too."""
        super().close()
        self._slots.give_back(self._slot)

    def _begin(self, hidden: Tensor) -> None:
        """Tell the slot where the prefilled reply stands."""
        self._slots.begin(
            self._slot,
            row=self._paged.row,
            settings=(self._code_sampler.settings, self._residual_sampler.settings),
            seed=self._code_sampler.seed,
            length=self._paged.length,
            position=self._position,
            hidden=hidden,
        )
