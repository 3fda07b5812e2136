"""One text token of many replies through the thinker: its logits, a row for each.

Which id is drawn depends on the reply (tools, forced ids, the end), so the host reads, once a
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.graphs import BUCKETS, Buckets, Capture
from models.qwen3_omni.thinker import Thinker
from models.stepping.decoder_step import angles, final_projection, step_decoder
from models.stepping.operations import Operations
from models.stepping.pages import PageTable


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """One reply's next step.

    Attributes:
        row: of the page table. token: the id to feed.
        length: positions in its cache, which must have room for one more. position: of the token.
    """

    row: int
    token: int
    length: int
    position: float


class TextStep:
    """Tokens for the sequences of a table."""

    def __init__(
        self,
        thinker: Thinker,
        table: PageTable,
        operations: Operations,
        capture: Capture,
        sizes: Sequence[int] = BUCKETS,
    ) -> None:
        self._thinker, self._table = thinker, table
        self._operations, self._capture = operations, capture
        self._steps = Buckets(self._build, sizes)

    def prepare(self) -> None:
        """Build the steps of all sizes, before anybody waits for one."""
        self._steps.build_all()

    def __call__(self, rows: Sequence[TextRow]) -> Tensor:
        """[B, vocab] float32 on the device; the next step of this size writes over it.

        The caches hold one position more: `advance` is the caller's.
        """
        return self._steps.of(len(rows))(rows)

    def _build(self, batch: int) -> _Token:
        return _Token(self._thinker, self._table, self._operations, self._capture, batch)


class _Token:
    """The step for one batch size."""

    def __init__(
        self,
        thinker: Thinker,
        table: PageTable,
        operations: Operations,
        capture: Capture,
        batch: int,
    ) -> None:
        self._thinker, self._table = thinker, table
        self._operations = operations
        device = table.rows.device
        # Rows of the table, tokens, lengths and positions in one tensor: one copy to the device a
        # step. Exact, as float64 holds them all.
        self._inputs = torch.zeros(4, batch, dtype=torch.float64, device=device)
        vocab = thinker.lm_head.weight.shape[0]
        self._logits = torch.zeros(batch, vocab, dtype=torch.float32, device=device)
        self._run = capture(self._step)

    def __call__(self, rows: Sequence[TextRow]) -> Tensor:
        given = [(row.row, row.token, row.length, row.position) for row in rows]
        given += [(0, 0, 0, 0.0)] * (self._inputs.shape[1] - len(rows))
        self._inputs.copy_(torch.tensor(given, dtype=torch.float64).t())
        self._run()
        return self._logits[: len(rows)]

    def _step(self) -> None:
        model = self._thinker.model
        table_rows, tokens = self._inputs[0].long(), self._inputs[1].long()
        lengths, positions = self._inputs[2].to(torch.int32), self._inputs[3].float()
        inputs = model.embed_tokens(tokens)
        made = step_decoder(
            model,
            inputs,
            angles(model, positions, inputs.dtype),
            self._table.pool,
            self._table.rows.index_select(0, table_rows),
            lengths,
            self._operations,
        )
        head = self._thinker.lm_head.weight
        self._logits.copy_(final_projection(model, made, head, self._operations))
