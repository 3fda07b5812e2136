"""The state of all replies that are being spoken, on the device, a slot for each.

Slot 0 belongs to nobody: the empty rows of a batch work there. What the host writes here, it writes
when a reply begins or ends; in between only steps do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.sampling import Draws
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.vocoder import Code2Wav
from models.sampling import SamplingSettings
from models.stepping.pages import PageTable
from models.stepping.vocoder_step import VocoderSlots

_OFF = SamplingSettings(do_sample=False)


class SpeechSlots:
    """See the module's docstring.

    Attributes:
        table: pages of the talker's caches. table_rows: [S] int64, each slot's row of it.
        lengths: [S] int32, positions in each cache. positions: [S] float32, of the next step.
        hidden: [S, H], the talker's output that the next frame is drawn from.
        codes: [S, num_code_groups] int64 and residual: [S, H], the last frame.
        seen: [S, vocab] bool, first codes drawn so far.
        code_draws, residual_draws: how each slot draws.
        vocoder: the pasts of its streams.
    """

    def __init__(
        self, talker: Talker, vocoder: Code2Wav, table: PageTable, *, num_slots: int
    ) -> None:
        weight = talker.codec_head.weight
        config = talker.config
        device, dtype, size = weight.device, weight.dtype, weight.shape[1]
        self.table = table
        self.table_rows = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(num_slots, dtype=torch.int32, device=device)
        self.positions = torch.zeros(num_slots, dtype=torch.float32, device=device)
        self.hidden = torch.zeros(num_slots, size, dtype=dtype, device=device)
        groups = config.num_code_groups
        self.codes = torch.zeros(num_slots, groups, dtype=torch.int64, device=device)
        self.residual = torch.zeros(num_slots, size, dtype=dtype, device=device)
        vocab = config.decoder.vocab_size
        self.seen = torch.zeros(num_slots, vocab, dtype=torch.bool, device=device)
        nobody = [_OFF] * num_slots
        self.code_draws = Draws.of(nobody, [0] * num_slots, device)
        self.residual_draws = Draws.of(nobody, [0] * num_slots, device)
        self.vocoder = VocoderSlots(vocoder, num_slots)
        self._free = list(range(num_slots - 1, 0, -1))

    def take(self) -> int | None:
        """A slot for a reply; None while all are taken."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: int) -> None:
        """Let a slot go."""
        self._free.append(slot)

    def begin(
        self,
        slot: int,
        *,
        row: int,
        settings: tuple[SamplingSettings, SamplingSettings],
        seed: int,
        length: int,
        position: float,
        hidden: Tensor,
    ) -> None:
        """Start a reply whose prefix of `length` positions is in its cache.

        Args:
            row: of the table, its cache's.
            settings: of first codes and of residual codes.
            position: of the step after the prefix. hidden: [H], the talker's last output.
        """
        self.table_rows[slot] = row
        self.lengths[slot] = length
        self.positions[slot] = position
        self.hidden[slot] = hidden
        self.seen[slot] = False
        for draws, chosen in zip((self.code_draws, self.residual_draws), settings, strict=True):
            draws.put(slot, chosen, seed)
            seed = (seed + 1) % 2**62  # the two draw by different numbers
