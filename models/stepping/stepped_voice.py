"""The voice of one reply by steps on the device: `models.speaking.Voice` with other means.

The reply's prefix is prefilled as ever; then the talker's cache is copied into pages and every
frame is a step. Replies beyond the slots, or with too long a context, speak by the plain voice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from models.engine_options import MAX_BATCH
from models.errors import ResourceError
from models.graphs import BUCKETS, pick_capture
from models.qwen3_omni.model import Qwen3Omni
from models.speaking import Voice
from models.stepping.operations import pick_operations
from models.stepping.pages import PAGE_SIZE, PagedCache
from models.stepping.speech_slots import SpeechSlots
from models.stepping.speech_step import SpeechStep

NUM_SLOTS = 33  # 32 replies, and nobody's
MAX_POSITIONS = 8192  # of one reply's talker, the user's turns included
POOL_POSITIONS = 8 * MAX_POSITIONS
PREFIX_TOKENS = 9
ROOM_TOKENS = 512  # held from the start: 40 s of speech
BATCH_SIZES = tuple(size for size in BUCKETS if size <= MAX_BATCH)


class SteppedVoices:
    """The slots of one engine and the steps over them.

    Raises:
        ResourceError: talker and vocoder lie apart.
    """

    def __init__(self, model: Qwen3Omni) -> None:
        assert model.talker is not None
        assert model.code2wav is not None
        device = model.talker.device
        if model.code2wav.device != device:
            raise ResourceError("speech by steps needs talker and code2wav on one device")
        self.slots = SpeechSlots(
            model.talker,
            model.code2wav,
            num_slots=NUM_SLOTS,
            num_pages=1 + POOL_POSITIONS // PAGE_SIZE,
            max_pages=MAX_POSITIONS // PAGE_SIZE,
        )
        self.step = SpeechStep(
            model, self.slots, pick_operations(device), pick_capture(device), sizes=BATCH_SIZES
        )

    def voice(self, **voice: Any) -> Voice:
        """A voice by steps, or a plain one where nothing is free; `voice` is `Voice`'s."""
        needed = voice["cache"].length + PREFIX_TOKENS + ROOM_TOKENS
        fits = needed <= min(MAX_POSITIONS, self.slots.pool.num_free * PAGE_SIZE)
        slot = self.slots.take() if fits else None
        return Voice(**voice) if slot is None else SteppedVoice(self, slot, **voice)


class SteppedVoice(Voice):
    """See the module's docstring."""

    def __init__(self, voices: SteppedVoices, slot: int, **voice: Any) -> None:
        super().__init__(**voice)
        self._slots, self._step, self._slot = voices.slots, voices.step, slot
        self._paged = PagedCache(self._slots.pool, self._slots.page_table[slot])
        self._num_codes = 0
        self._made = torch.zeros(0)

    def reserve(self) -> None:
        """As `Voice.reserve`: of the pages, once the reply is in them."""
        if self._num_codes:
            self._paged.reserve(1)
        else:
            super().reserve()

    @classmethod
    def next_frames(
        cls, voices: Sequence[Self], tokens: Sequence[int | None]
    ) -> list[tuple[int, ...] | None]:
        """As `Voice.next_frames`; the samples come with the codes."""
        step, slots = voices[0]._step, [voice._slot for voice in voices]
        if voices[0]._num_codes == 0:
            (voice,), (token,) = voices, tokens
            voice._begin(voice._start(token))
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
        """Let the slot and its pages go, too."""
        super().close()
        self._paged.truncate(0)
        self._slots.give_back(self._slot)

    def _begin(self, hidden: Tensor) -> None:
        """Copy the prefilled prefix into pages, and tell the slot where it stands."""
        self._paged.reserve(self._cache.length + ROOM_TOKENS)
        for index in range(self._talker.config.decoder.num_layers):
            keys, values = self._cache.layer(index)
            self._paged.append(index, keys.transpose(0, 1), values.transpose(0, 1))
        self._paged.advance(self._cache.length)
        self._slots.begin(
            self._slot,
            settings=(self._code_sampler.settings, self._residual_sampler.settings),
            seed=self._code_sampler.seed,
            length=self._cache.length,
            position=self._position,
            hidden=hidden,
        )
