"""One codec frame of many replies: talker, code predictor and vocoder, as two or three graphs.

`advance` feeds the last frame and the next text to the talker; `speak` draws a frame from the
talker's output and turns it into samples. A reply begins with `speak` alone (its prefix was
prefilled), and its first `speak` has a shape of its own. The end of speech is a code like others
until the host reads it: the predictor and the vocoder run on for nothing in that one frame, and
there is a single point a frame where the host waits, `Frames.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.graphs import BUCKETS, Buckets, Capture
from models.kernels.sampling import banned
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import Talker
from models.stepping.decoder_step import angles, step_decoder
from models.stepping.operations import Operations
from models.stepping.predictor_step import PredictorStep
from models.stepping.speech_slots import SpeechSlots
from models.stepping.vocoder_step import VocoderStep


@dataclass(frozen=True, slots=True)
class Frames:
    """What one step made, still on the device; the next step of its size writes over it.

    Attributes:
        codes: [B, num_code_groups] int64. pcm: [B, samples] float32 at 24 kHz.
        num_rows: rows that were asked for.
    """

    codes: Tensor
    pcm: Tensor
    num_rows: int

    def read(self) -> tuple[list[list[int]], Tensor]:
        """Codes and samples on the host: waits for the device, once for both."""
        rows = slice(0, self.num_rows)
        # Codes are below 2**24: exact in float32, and one copy is one wait.
        joined = torch.cat((self.codes[rows].to(torch.float32), self.pcm[rows]), dim=1).cpu()
        groups = self.codes.shape[1]
        return joined[:, :groups].to(torch.int64).tolist(), joined[:, groups:]


class SpeechStep:
    """Frames for the replies of `slots`.

    Args:
        capture: how steps are made into graphs. sizes: batch sizes to build them for.
        first_sizes: those of first frames.
    """

    def __init__(
        self,
        model: Qwen3Omni,
        slots: SpeechSlots,
        operations: Operations,
        capture: Capture,
        sizes: Sequence[int] = BUCKETS,
        first_sizes: Sequence[int] = BUCKETS,
    ) -> None:
        assert model.talker is not None
        assert model.code2wav is not None
        self._talker, self._slots = model.talker, slots
        self._code2wav, self._operations, self._capture = model.code2wav, operations, capture
        self._advance = Buckets(self._build_advance, sizes)
        self._first = Buckets(lambda batch: self._build_speak(batch, is_first=True), first_sizes)
        self._next = Buckets(lambda batch: self._build_speak(batch, is_first=False), sizes)

    def prepare(self) -> None:
        """Build the steps of all sizes, before anybody waits for one."""
        self._first.build_all()
        self._advance.build_all()
        self._next.build_all()

    def first(self, slots: Sequence[int]) -> Frames:
        """The first frames of replies just begun."""
        return self._first.of(len(slots))(slots)

    def next(self, slots: Sequence[int], texts: Sequence[Tensor]) -> Frames:
        """A later frame of each reply; its text is a projected embedding, [H]."""
        self._advance.of(len(slots))(slots, texts)
        return self._next.of(len(slots))(slots)

    # ------------------------------------------------------------------ steps of one size
    def _build_advance(self, batch: int) -> _Advance:
        return _Advance(self._talker, self._slots, self._operations, self._capture, batch)

    def _build_speak(self, batch: int, *, is_first: bool) -> _Speak:
        vocoder = VocoderStep(
            self._code2wav, self._slots.vocoder, self._operations, is_first=is_first
        )
        return _Speak(self._talker, self._slots, self._operations, self._capture, batch, vocoder)


class _Advance:
    """The talker's step for one batch size."""

    def __init__(
        self,
        talker: Talker,
        slots: SpeechSlots,
        operations: Operations,
        capture: Capture,
        batch: int,
    ) -> None:
        self._talker, self._slots, self._operations = talker, slots, operations
        self._rows = torch.zeros(batch, dtype=torch.int64, device=slots.lengths.device)
        self._texts = torch.zeros_like(slots.hidden[:1]).repeat(batch, 1)
        self._run = capture(self._step)

    def __call__(self, slots: Sequence[int], texts: Sequence[Tensor]) -> None:
        _put(self._rows, slots)
        self._texts[: len(texts)] = torch.stack(tuple(texts))
        self._run()

    def _step(self) -> None:
        talker, slots, rows = self._talker, self._slots, self._rows
        lengths = slots.lengths.index_select(0, rows)
        positions = slots.positions.index_select(0, rows)
        codes = slots.codes.index_select(0, rows)[:, 0]
        residual = slots.residual.index_select(0, rows)
        inputs = talker.embed_code(codes) + (residual + self._texts)
        rotary = angles(talker.model, positions, inputs.dtype)
        pages = slots.table
        table = pages.rows.index_select(0, slots.table_rows.index_select(0, rows))
        made = step_decoder(
            talker.model, inputs, rotary, pages.pool, table, lengths, self._operations
        )
        slots.hidden.index_copy_(0, rows, talker.model.norm(made))
        # Nobody's stays 0: counted on, it would in time lie behind nobody's page, in another's.
        slots.lengths.index_copy_(0, rows, lengths + (rows > 0))
        slots.positions.index_copy_(0, rows, positions + 1)


class _Speak:
    """From the talker's outputs to codes and samples, for one batch size."""

    def __init__(
        self,
        talker: Talker,
        slots: SpeechSlots,
        operations: Operations,
        capture: Capture,
        batch: int,
        vocoder: VocoderStep,
    ) -> None:
        self._talker, self._slots, self._operations = talker, slots, operations
        self._predictor = PredictorStep(talker.code_predictor, batch=batch, operations=operations)
        self._vocoder = vocoder
        device = slots.lengths.device
        self._rows = torch.zeros(batch, dtype=torch.int64, device=device)
        self._codes = torch.zeros(batch, slots.codes.shape[1], dtype=torch.int64, device=device)
        self._pcm = torch.zeros(batch, vocoder.num_samples, device=device)
        self._run = capture(self._step)

    def __call__(self, slots: Sequence[int]) -> Frames:
        _put(self._rows, slots)
        self._run()
        return Frames(self._codes, self._pcm, len(slots))

    def _step(self) -> None:
        talker, slots, rows = self._talker, self._slots, self._rows
        hidden = slots.hidden.index_select(0, rows)
        logits = banned(talker.codec_head(hidden), talker.banned)
        seen = slots.seen.index_select(0, rows)
        draws = slots.code_draws.rows(rows)
        code0 = self._operations.sample(logits, draws, seen)
        draws.advance()
        slots.code_draws.put_back(rows, draws)
        slots.seen.index_copy_(0, rows, seen.scatter(1, code0[:, None], True))
        draws = slots.residual_draws.rows(rows)
        codes, residual = self._predictor(hidden, code0, talker.embed_code(code0), draws)
        slots.residual_draws.put_back(rows, draws)
        slots.codes.index_copy_(0, rows, codes)
        slots.residual.index_copy_(0, rows, residual)
        self._codes.copy_(codes)
        self._pcm.copy_(self._vocoder(codes, rows))


def _put(rows: Tensor, slots: Sequence[int]) -> None:
    """Name the slots of a batch; what is left over works for nobody."""
    padded = [*slots, *[0] * (len(rows) - len(slots))]
    rows.copy_(torch.tensor(padded, dtype=torch.int64))
