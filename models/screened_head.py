"""The best logits of a large output head, exact, for a quarter of its bytes.

On a CPU a text token's dearest step is the head: every row of it is read to learn which few logits
are the best. Here the rows are read as int8 first. Each approximate logit comes with a bound of its
error (Cauchy-Schwarz over the row's rounding and over the hidden state's), so the rows that can
still be among the best are known for certain, and only those are computed as the head would. The
answer is the head's own, not an approximation; what else is in the vocabulary gets -inf.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.sampling import NEGATIVE_INFINITY

KERNEL_COLUMNS = 16  # the library's kernel reads beyond rows that are no multiple of it
MIN_HEAD_BYTES = 32 * 2**20  # smaller heads stay in the cache, where reading them all is as quick
MAX_CANDIDATE_SHARE = 1 / 16  # above it, the whole head is no dearer
ROWS_AT_ONCE = 8192
ROUNDING = 2.0**-8  # of a bfloat16 result, twice over: the kernel's sums have errors of their own


class ScreenedHead:
    """An int8 copy of a head's rows beside the head itself, which must not change.

    Args:
        weight: [vocab, H] float32 on the CPU.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.detach()
        vocab, size = weight.shape
        self._rows = torch.empty(vocab, size, dtype=torch.int8)
        self._scales = torch.empty(vocab, dtype=torch.bfloat16)
        self._norms = torch.empty(vocab, 2)  # of each row's rounding, and of the row as rounded
        for start in range(0, vocab, ROWS_AT_ONCE):
            self._round(slice(start, start + ROWS_AT_ONCE))

    @classmethod
    def of(cls, head: nn.Linear) -> ScreenedHead | None:
        """For a head where this pays: large, float32, on a CPU; else None."""
        weight = head.weight
        is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        is_plain = is_plain and weight.shape[1] % KERNEL_COLUMNS == 0
        return cls(weight) if is_plain and weight.nbytes >= MIN_HEAD_BYTES else None

    def logits(self, hidden: Tensor, num_best: Sequence[int]) -> list[Tensor]:
        """[B, H] float32 -> [vocab] float32 for each row: its `num_best` greatest logits (and
        whatever else was computed on the way) where they belong, -inf elsewhere.
        """
        rounded = hidden.to(torch.bfloat16)
        screened = torch._weight_int8pack_mm(rounded, self._rows, self._scales)  # [B, vocab]
        rows = zip(hidden, rounded, screened, num_best, strict=True)
        return [self._exact(row, self._candidates(row, *rest)) for row, *rest in rows]

    def _exact(self, hidden: Tensor, ids: Tensor) -> Tensor:
        if len(ids) > MAX_CANDIDATE_SHARE * len(self._weight):
            return F.linear(hidden, self._weight)
        exact = F.linear(hidden, self._weight.index_select(0, ids))
        return torch.full((len(self._weight),), NEGATIVE_INFINITY).index_copy_(0, ids, exact)

    def _candidates(
        self, hidden: Tensor, rounded: Tensor, screened: Tensor, num_best: int
    ) -> Tensor:
        """Ids of every row whose logit may be one of the `num_best` greatest."""
        scores = screened.to(torch.float32)
        norms = torch.stack((hidden.norm(), (hidden - rounded).norm()))
        errors = torch.mv(self._norms, norms).add_(scores.abs(), alpha=ROUNDING)
        sure = scores - errors
        floor = sure.max() if num_best == 1 else sure.topk(min(num_best, len(sure))).values[-1]
        return (scores + errors >= floor).nonzero()[:, 0]

    def _round(self, rows: slice) -> None:
        weight = self._weight[rows]
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12).to(torch.bfloat16)
        steps = scales.to(torch.float32)[:, None]
        levels = (weight / steps).round().clamp(-127, 127)
        levels_as_used = levels * steps
        self._rows[rows], self._scales[rows] = levels.to(torch.int8), scales
        self._norms[rows, 0] = (weight - levels_as_used).norm(dim=1)
        self._norms[rows, 1] = levels_as_used.norm(dim=1)
