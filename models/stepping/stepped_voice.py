"""The voice of one reply by steps on the device: `models.speaking.Voice` with other means.

The reply's prefix is prefilled as ever; then the talker's cache is copied into pages and every
frame is a step. Replies beyond the slots, or with too long a context, speak by the plain voice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.errors import ResourceError
from models.graphs import pick_capture
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
            model, self.slots, pick_operations(device), pick_capture(device), sizes=(1,)
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

    def next_frame(self, token: int | None) -> tuple[int, ...] | None:
        """As `Voice.next_frame`; the samples come with the codes.

        Raises:
            ResourceError: the pages are full.
        """
        if self._num_codes == 0:
            self._begin(self._start(token))
            frames = self._step.first([self._slot])
        else:
            self._paged.reserve(1)
            frames = self._step.next([self._slot], [self._tail(token)])
            self._paged.advance(1)
        codes, pcm = frames.read()  # the one point of a frame where the host waits for the device
        self._num_codes += 1
        is_over = codes[0][0] == self._talker.config.codec_eos_id
        if is_over or self._num_codes >= self._max_codes:
            return None
        self._made = pcm[0]
        self.num_frames += 1
        return tuple(codes[0])

    def pcm(self) -> Tensor:
        """Samples of the frame just made, on the host."""
        return self._made

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
