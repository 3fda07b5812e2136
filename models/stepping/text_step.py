"""One text token of many replies through the thinker, and the next one drawn: all in one graph.

The host reads the ids of all rows at once, and so waits once a token. What a draw depends on is its
reply's seed and how many ids that has drawn. Few settings can not be drawn so (`can_draw`); of such
a row the host takes the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.graphs import BUCKETS, Buckets, Capture
from models.kernels.sampling import Draws
from models.qwen3_omni.thinker import Thinker
from models.sampling import NEGATIVE_INFINITY, SamplingSettings
from models.stepping.decoder_step import angles, final_projection, step_decoder
from models.stepping.operations import Operations
from models.stepping.pages import PageTable

BEST = 256  # greatest logits of a row, among which its id is drawn
NUM_WHOLE, NUM_FLOATS = 7, 3  # of a row's inputs
_GREEDY = SamplingSettings(do_sample=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDraw:
    """How a reply's next id is drawn.

    Attributes:
        count: ids drawn so far. banned: an id that is not drawn.
    """

    settings: SamplingSettings
    seed: int = 0
    count: int = 0
    banned: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """One reply's next step.

    Attributes:
        row: of the page table. token: the id to feed.
        length: positions in its cache, which must have room for one more. position: of the token.
        draw: of the id that follows; None: its logits are asked for.
    """

    row: int
    token: int
    length: int
    position: float
    draw: TextDraw | None = None


def can_draw(settings: SamplingSettings, num_drawn: int) -> bool:
    """Whether a step can draw by these settings, after so many ids."""
    is_few = settings.is_greedy or 0 < settings.top_k <= BEST
    has_end = num_drawn >= settings.min_new_tokens
    return is_few and has_end and settings.repetition_penalty == 1.0


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

    def __call__(self, rows: Sequence[TextRow]) -> list[int | Tensor]:
        """For each row the id that was drawn, or its logits, [vocab] float32 on the device; the
        next step of this size writes over them.

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
        # All inputs in one tensor: one copy to the device a step. Floats lie in it bit by bit.
        self._inputs = torch.zeros(NUM_WHOLE + NUM_FLOATS, batch, dtype=torch.int64, device=device)
        vocab = thinker.lm_head.weight.shape[0]
        # One column more, for what is banned where nothing is.
        self._logits = torch.zeros(batch, vocab + 1, dtype=torch.float32, device=device)
        self._ids = torch.zeros(batch, dtype=torch.int64, device=device)
        self._penalty = torch.ones(batch, dtype=torch.float32, device=device)
        self._run = capture(self._step)

    def __call__(self, rows: Sequence[TextRow]) -> list[int | Tensor]:
        self._inputs.copy_(_packed(rows, self._inputs.shape[1], nothing=self._logits.shape[1] - 1))
        self._run()
        # Where the host waits for the device.
        ids = self._ids.tolist() if any(row.draw is not None for row in rows) else []
        return [
            self._logits[place, :-1] if row.draw is None else ids[place]
            for place, row in enumerate(rows)
        ]

    def _step(self) -> None:
        model = self._thinker.model
        table_rows, tokens, lengths, top_k, seeds, counts, banned = self._inputs[:NUM_WHOLE]
        positions, heat, top_p = self._inputs[NUM_WHOLE:].view(torch.float64).to(torch.float32)
        inputs = model.embed_tokens(tokens)
        made = step_decoder(
            model,
            inputs,
            angles(model, positions, inputs.dtype),
            self._table.pool,
            self._table.rows.index_select(0, table_rows),
            lengths.to(torch.int32),
            self._operations,
        )
        head = self._thinker.lm_head.weight
        self._logits[:, :-1] = final_projection(model, made, head, self._operations)
        allowed = self._logits.scatter(1, banned[:, None], NEGATIVE_INFINITY)[:, :-1]
        # In the order of their ids: of equal ones the first is best, as everywhere.
        ids = allowed.topk(min(BEST, allowed.shape[1])).indices.sort(dim=1).values
        draws = Draws(heat, top_k.to(torch.int32), top_p, self._penalty, seeds, counts)
        drawn = self._operations.sample(allowed.gather(1, ids), draws, None)
        self._ids.copy_(ids.gather(1, drawn[:, None])[:, 0])


def _packed(rows: Sequence[TextRow], batch: int, *, nothing: int) -> Tensor:
    """The inputs of a step; `nothing`: the column that is banned where no id is."""
    whole, floats = [], []
    for row in rows:
        draw = row.draw or TextDraw(settings=_GREEDY)
        settings, banned = draw.settings, nothing if draw.banned is None else draw.banned
        whole.append(
            (row.row, row.token, row.length, settings.top_k, draw.seed, draw.count, banned)
        )
        heat = 0.0 if settings.is_greedy else settings.temperature
        floats.append((row.position, heat, settings.top_p))
    idle = batch - len(rows)
    whole += [(0, 0, 0, 0, 0, 0, nothing)] * idle
    floats += [(0.0, 0.0, 1.0)] * idle
    bits = torch.tensor(floats, dtype=torch.float64).view(torch.int64)
    return torch.cat((torch.tensor(whole, dtype=torch.int64), bits), dim=1).t()
