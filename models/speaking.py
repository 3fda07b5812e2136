"""The voice of one reply: talker, code predictor and vocoder, one codec frame of 80 ms at a time.

Starts from the first text token alone; each further frame reads the next one. When the text is over
the talker reads an end-of-text token once and padding from then on, until it samples its own end.
While the text is merely late the voice waits: padding early would change the speech. Voices that
have begun, or that all begin, make their frames together where they can, each as it would alone.
Source: Qwen3-Omni's talker, spec 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from models.cache import SequenceCache
from models.qwen3_omni.code_predictor import CodecFrame
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import SpecialText, Talker
from models.qwen3_omni.vocoder import VocoderState
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
        cache: SequenceCache,
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
        self._position = self._first_position = position
        self._speaker = speaker
        self._special = special
        self._codes: list[int] = []
        self._code_sampler = code_sampler
        self._residual_sampler = residual_sampler
        self._max_codes = max_codes
        self._frame: CodecFrame | None = None
        self._is_end_read = False
        self.num_frames = 0

    @cached_property
    def _vocoder_state(self) -> VocoderState:
        """Made when the first sound is: voices by steps have theirs elsewhere."""
        return self._code2wav.new_state()

    def reserve(self) -> None:
        """Make room for the next frame, and for what is before the first.

        Raises:
            ResourceError: the talker's context is full; nothing was changed.
        """
        is_first = self._position == self._first_position
        self._cache.reserve(self._talker.prefix_length(self._special) if is_first else 1)

    @classmethod
    def next_frames(
        cls, voices: Sequence[Self], tokens: Sequence[int | None]
    ) -> list[tuple[int, ...] | None]:
        """The codes of the next frame of several voices of one model that have begun, or that all
        begin; each reads a text token, or None where its text is over.

        Returns None for each whose talker is done.
        """
        talker = voices[0]._talker
        if voices[0]._frame is None:
            hidden = cls._start(voices, tokens)
        else:
            hidden = cls._advance(talker, voices, tokens)
        scores = talker.code_logits(hidden)  # [B, vocab]
        codes = torch.stack(
            [
                voice._code_sampler(row, voice._codes)
                for voice, row in zip(voices, scores, strict=True)
            ]
        )  # [B]
        for voice, code in zip(voices, codes.tolist(), strict=True):
            voice._codes.append(code)
        going = [row for row, voice in enumerate(voices) if not voice._is_over]
        made: list[tuple[int, ...] | None] = [None] * len(voices)
        if len(going) < len(voices):
            rows = torch.tensor(going, dtype=torch.int64, device=codes.device)
            hidden, codes = hidden.index_select(0, rows), codes.index_select(0, rows)
        if going:
            samplers = [voices[row]._residual_sampler for row in going]
            frames = talker.code_predictor.predict_rows(
                hidden, codes, talker.embed_code(codes), samplers
            )
            for row, frame_codes, residual in zip(going, *frames, strict=True):
                voices[row]._frame = CodecFrame(frame_codes, residual)
                voices[row].num_frames += 1
            for row, ids in zip(going, frames[0].tolist(), strict=True):
                made[row] = tuple(ids)
        return made

    @classmethod
    def pcms(cls, voices: Sequence[Self]) -> list[Tensor]:
        """Samples of the frame that each voice has just made, [1365 or 1920] float32 at 24 kHz."""
        frames = [voice._frame.codes for voice in voices if voice._frame is not None]
        assert len(frames) == len(voices)
        vocoder = voices[0]._code2wav
        codes = torch.stack(frames).to(vocoder.device)  # [B, num_code_groups]
        states = [voice._vocoder_state for voice in voices]
        if len(voices) > 1 and states[0].num_frames:
            return list(vocoder.next_frames(codes, states))
        return [vocoder(row[None], state) for row, state in zip(codes, states, strict=True)]

    def close(self) -> None:
        """Take the speech out of the talker's cache: the next turn's talker never hears it."""
        if self._cache.length > self._cache_length:
            self._cache.truncate(self._cache_length)

    @staticmethod
    def _start(voices: Sequence[Voice], tokens: Sequence[int | None]) -> Tensor:
        """Feed what is before each voice's first frame: the talker's last outputs, [B, H]."""
        talker = voices[0]._talker
        texts = [token for token in tokens if token is not None]
        assert len(texts) == len(voices), "speech starts with a text token"
        prefixes = [
            talker.reply_prefix(voice._special, voice._speaker, text)
            for voice, text in zip(voices, voices[0]._read(texts), strict=True)
        ]
        lengths = [len(prefix) for prefix in prefixes]
        steps = torch.arange(max(lengths), dtype=torch.float32, device=prefixes[0].device)
        positions = [
            voice._position + steps[:length] for voice, length in zip(voices, lengths, strict=True)
        ]
        caches = [voice._cache for voice in voices]
        hidden = talker.read_spans(torch.cat(prefixes), torch.cat(positions), caches, lengths)
        for voice, length in zip(voices, lengths, strict=True):
            voice._position += length
        return hidden[[stop - 1 for stop in accumulate(lengths)]]

    @property
    def _is_over(self) -> bool:
        """Whether the code drawn last is the end of the speech."""
        is_end = self._codes[-1] == self._talker.config.codec_eos_id
        return is_end or len(self._codes) >= self._max_codes

    @staticmethod
    def _advance(talker: Talker, voices: Sequence[Voice], tokens: Sequence[int | None]) -> Tensor:
        """Feed each voice's last frame with the text that it reads now: [B, H]."""
        frames = [voice._frame for voice in voices if voice._frame is not None]
        assert len(frames) == len(voices), "voices that begin do so with others that do"
        codes = torch.stack([frame.codes[0] for frame in frames])
        residuals = torch.stack([frame.residual_embedding for frame in frames])
        inputs = talker.embed_frames(codes, residuals, voices[0]._tails(voices, tokens))
        positions = torch.tensor([voice._position for voice in voices], device=inputs.device)
        hidden = talker.step_rows(inputs, positions, [voice._cache for voice in voices])
        for voice in voices:
            voice._position += 1
        return hidden

    @staticmethod
    def _tails(voices: Sequence[Voice], tokens: Sequence[int | None]) -> Tensor:
        """What each voice reads now: a text token, the end of the text once, padding from then on:
        [B, H].
        """
        reading = [token for token in tokens if token is not None]
        texts = iter(voices[0]._read(reading) if reading else ())
        return torch.stack(
            [
                voice._after_text() if token is None else next(texts)
                for voice, token in zip(voices, tokens, strict=True)
            ]
        )

    def _after_text(self) -> Tensor:
        if self._is_end_read:
            return self._special.pad
        self._is_end_read = True
        return self._special.end

    def _read(self, tokens: Sequence[int]) -> Tensor:
        """Text as the talker reads it: [T, H]."""
        ids = torch.tensor(tokens, device=self._thinker.device)
        return self._talker.project_text(self._thinker.embed(ids))
