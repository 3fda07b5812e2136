"""The voice of one reply: talker, code predictor and vocoder, one codec frame of 80 ms at a time.

Starts from the first text token alone; each further frame reads the next one. When the text is over
the talker reads an end-of-text token once and padding from then on, until it samples its own end.
While the text is merely late the voice waits: padding early would change the speech. Source:
Qwen3-Omni's talker, spec 5.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.cache import KvCache
from models.qwen3_omni.code_predictor import CodecFrame
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import SpecialText
from models.sampling import Sampler


class Voice:
    """See the module's docstring.

    Args:
        cache: the talker's cache of the user's messages; speech is appended behind them and taken
            out again by `close`.
        position: the talker's next position.
        speaker: codec id of the voice. special: the fixed text around every reply.
        max_codes: the talker's limit; its last code is never spoken (as the reference has it).
    """

    def __init__(
        self,
        *,
        model: Qwen3Omni,
        cache: KvCache,
        position: float,
        speaker: int,
        special: SpecialText,
        code_sampler: Sampler,
        residual_sampler: Sampler,
        max_codes: int,
    ) -> None:
        assert model.talker is not None
        assert model.code2wav is not None
        self._thinker = model.thinker
        self._talker = model.talker
        self._code2wav = model.code2wav
        self._cache = cache
        self._cache_length = cache.length
        self._position = position
        self._speaker = speaker
        self._special = special
        self._codes: list[int] = []
        self._code_sampler = code_sampler
        self._residual_sampler = residual_sampler
        self._max_codes = max_codes
        self._vocoder_state = model.code2wav.new_state()
        self._frame: CodecFrame | None = None
        self._is_end_read = False
        self.num_frames = 0

    def next_frame(self, token: int | None) -> tuple[int, ...] | None:
        """Make the next frame's codes, reading a text token (None: the text is over).

        Returns None when the talker is done.
        """
        hidden = self._start(token) if self._frame is None else self._advance(self._frame, token)
        code = self._code_sampler(self._talker.code_logits(hidden), self._codes)
        self._codes.append(int(code))
        is_over = self._codes[-1] == self._talker.config.codec_eos_id
        if is_over or len(self._codes) >= self._max_codes:
            return None
        embed = self._talker.embed_code(code)
        self._frame = self._talker.code_predictor.predict(
            hidden, code, embed, self._residual_sampler
        )
        self.num_frames += 1
        return tuple(self._frame.codes.tolist())

    def pcm(self) -> Tensor:
        """Samples of the frame just made, [1365 or 1920] float32 at 24 kHz."""
        assert self._frame is not None
        codes = self._frame.codes[None].to(self._code2wav.device)
        samples: Tensor = self._code2wav(codes, self._vocoder_state)
        return samples

    def close(self) -> None:
        """Take the speech out of the talker's cache: the next turn's talker never hears it."""
        if self._cache.length > self._cache_length:
            self._cache.truncate(self._cache_length)

    def _start(self, token: int | None) -> Tensor:
        assert token is not None, "speech starts with a text token"
        prefix = self._talker.reply_prefix(self._special, self._speaker, self._read(token))
        positions = torch.arange(len(prefix), dtype=torch.float32, device=prefix.device)
        hidden: Tensor = self._talker(prefix, positions + self._position, self._cache)
        self._position += len(prefix)
        return hidden[-1]

    def _advance(self, frame: CodecFrame, token: int | None) -> Tensor:
        inputs = self._talker.embed_frame(frame, self._tail(token))  # [1, H]
        position = torch.tensor([self._position], dtype=torch.float32, device=inputs.device)
        hidden: Tensor = self._talker(inputs, position, self._cache)
        self._position += 1
        return hidden[-1]

    def _tail(self, token: int | None) -> Tensor:
        """What is read now: a text token, the end of the text once, padding from then on."""
        if token is not None:
            return self._read(token)
        if self._is_end_read:
            return self._special.pad
        self._is_end_read = True
        return self._special.end

    def _read(self, token: int) -> Tensor:
        ids = torch.tensor([token], device=self._thinker.device)
        return self._talker.project_text(self._thinker.embed(ids))[0]  # [H]
