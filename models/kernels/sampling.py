"""From logits to ids on the device, a row for each session, with random numbers of its own.

Every session draws by a counter (Philox): its numbers depend on its seed and on how many ids it has
drawn, never on its neighbours in a batch, and are the same in `reference` and `fused`. (The engine
without steps draws by torch's generators: for a seed it says something else.)
Order of the steps as in `models.sampling`; equals of the last id kept are kept, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.kernels.language import Pointer, check_rows, jit, next_power_of_2, tl
from models.sampling import NEGATIVE_INFINITY, SamplingSettings

MAX_COLUMNS = 8192  # a row is sorted in one program; larger vocabularies give their best ids only
DRAW_SHIFT = 18  # bits for the id in a random number's counter


@dataclass(frozen=True, slots=True)
class Draws:
    """How each row of a batch draws: tensors of [B] on the device, rewritten in place.

    Attributes:
        temperature: float32; 0 takes the best id. top_k: int32; 0 keeps all. top_p: float32.
        penalty: float32 factor against ids seen. seed: int64. count: int64, ids drawn so far;
            `advance` counts.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    penalty: Tensor
    seed: Tensor
    count: Tensor

    @classmethod
    def of(
        cls, settings: Sequence[SamplingSettings], seeds: Sequence[int], device: torch.device
    ) -> Draws:
        """One row for each of the settings."""
        heat = [0.0 if row.is_greedy else row.temperature for row in settings]
        return cls(
            torch.tensor(heat, dtype=torch.float32, device=device),
            torch.tensor([row.top_k for row in settings], dtype=torch.int32, device=device),
            torch.tensor([row.top_p for row in settings], dtype=torch.float32, device=device),
            torch.tensor(
                [row.repetition_penalty for row in settings], dtype=torch.float32, device=device
            ),
            torch.tensor(seeds, dtype=torch.int64, device=device),
            torch.zeros(len(seeds), dtype=torch.int64, device=device),
        )

    def advance(self, num_ids: int = 1) -> None:
        """Count more ids of every row."""
        self.count.add_(num_ids)

    def put(self, row: int, settings: SamplingSettings, seed: int) -> None:
        """Let a row begin anew."""
        self.temperature[row] = 0.0 if settings.is_greedy else settings.temperature
        self.top_k[row], self.top_p[row] = settings.top_k, settings.top_p
        self.penalty[row] = settings.repetition_penalty
        self.seed[row], self.count[row] = seed, 0

    def rows(self, rows: Tensor) -> Draws:
        """A copy of some rows, [B] int64, for one step."""
        return Draws(
            *(part.index_select(0, rows) for part in (self.temperature, self.top_k, self.top_p)),
            *(part.index_select(0, rows) for part in (self.penalty, self.seed, self.count)),
        )

    def put_back(self, rows: Tensor, draws: Draws) -> None:
        """Take over how far a copy has counted."""
        self.count.index_copy_(0, rows, draws.count)


def reference(logits: Tensor, draws: Draws, seen: Tensor | None, offset: int = 0) -> Tensor:
    """Plain PyTorch of `fused`."""
    logits = logits.to(torch.float32)
    if seen is not None:
        penalty = draws.penalty[:, None]
        changed = torch.where(logits < 0, logits * penalty, logits / penalty)
        logits = torch.where(seen, changed, logits)
    is_greedy = (draws.temperature == 0)[:, None]
    logits = logits / torch.where(is_greedy, 1.0, draws.temperature[:, None])
    ordered = logits.sort(dim=-1, descending=True).values
    columns = logits.shape[-1]
    last = torch.where(draws.top_k == 0, columns, draws.top_k).clamp(max=columns).long() - 1
    floor = ordered.gather(-1, last[:, None])
    shares = (ordered - ordered[:, :1]).exp().masked_fill(ordered < floor, 0.0)
    before = (shares.cumsum(dim=-1) - shares) / shares.sum(dim=-1, keepdim=True)
    is_kept = (before < draws.top_p[:, None]) & (ordered >= floor)
    floor = ordered.masked_fill(~is_kept, float("inf")).amin(dim=-1, keepdim=True)
    weights = (logits - ordered[:, :1]).exp().masked_fill(logits < floor, 0.0)
    races = weights / -uniform(draws, columns, offset).log()
    return torch.where(is_greedy, logits, races).argmax(dim=-1)


def uniform(draws: Draws, columns: int, offset: int) -> Tensor:
    """[B, columns] float32 in [0, 1): the numbers of each row's next draw, or of a later one."""
    ids = torch.arange(columns, device=draws.seed.device)
    counter = ((draws.count[:, None] + offset) << DRAW_SHIFT) + ids
    made = _philox(counter, draws.seed[:, None])
    signed = torch.where(made >= 2**31, made - 2**32, made)
    return torch.where(signed < 0, -signed - 1, signed).to(torch.float32) * 4.6566127342e-10


def fused(logits: Tensor, draws: Draws, seen: Tensor | None, offset: int = 0) -> Tensor:
    """One id for each row, [B] int64; `draws.count` stays.

    Args:
        logits: [B, vocab], any float dtype; -inf is never drawn.
        seen: [B, vocab] bool, what the penalty is against; None: no penalty.
        offset: ids drawn of each row that are not counted yet.
    """
    num_rows, columns = logits.shape
    assert columns <= MAX_COLUMNS, f"{columns} columns: the best {MAX_COLUMNS} must be found before"
    check_rows("logits", logits, (num_rows, columns))
    ids = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    _kernel[(num_rows,)](
        logits,
        seen,
        draws.temperature,
        draws.top_k,
        draws.top_p,
        draws.penalty,
        draws.seed,
        draws.count,
        ids,
        columns,
        offset,
        HAS_SEEN=seen is not None,
        BLOCK=next_power_of_2(columns),
        SHIFT=DRAW_SHIFT,
    )
    return ids


def banned(logits: Tensor, is_banned: Tensor) -> Tensor:
    """`logits` in float32 with -inf where an id may not be drawn."""
    return logits.to(torch.float32).masked_fill(is_banned, NEGATIVE_INFINITY)


def _philox(counter: Tensor, seed: Tensor) -> Tensor:
    """First word of Philox 4x32-10 (Salmon et al. 2011) for 64-bit counters and keys, as int64."""
    word = 0xFFFFFFFF
    c0, c1 = counter & word, (counter >> 32) & word
    c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed & word, (seed >> 32) & word
    for _ in range(10):
        high_b, low_b = _product(c2, 0xCD9E8D57)
        high_a, low_a = _product(c0, 0xD2511F53)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    return c0


def _product(left: Tensor, right: int) -> tuple[Tensor, Tensor]:
    """High and low half of a product of two 32-bit numbers held as int64."""
    low = (left & 0xFFFF) * right
    high = (left >> 16) * right + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


@jit
def _kernel(
    logits_ptr: Pointer,
    seen_ptr: Pointer,
    temperature_ptr: Pointer,
    top_k_ptr: Pointer,
    top_p_ptr: Pointer,
    penalty_ptr: Pointer,
    seed_ptr: Pointer,
    count_ptr: Pointer,
    ids_ptr: Pointer,
    columns: int,
    offset: int,
    HAS_SEEN: tl.constexpr,
    BLOCK: tl.constexpr,
    SHIFT: tl.constexpr,
) -> None:
    """One row, held whole."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    has = column < columns
    nothing = -float("inf")
    logits = tl.load(logits_ptr + row * columns + column, mask=has, other=nothing).to(tl.float32)
    if HAS_SEEN:
        is_seen = tl.load(seen_ptr + row * columns + column, mask=has, other=0) != 0
        penalty = tl.load(penalty_ptr + row)
        changed = tl.where(logits < 0, logits * penalty, logits / penalty)
        logits = tl.where(is_seen, changed, logits)
    temperature = tl.load(temperature_ptr + row)
    is_greedy = temperature == 0
    logits = logits / tl.where(is_greedy, 1.0, temperature)
    ordered = tl.sort(logits, descending=True)
    top = tl.max(logits, axis=0)
    top_k = tl.load(top_k_ptr + row)
    last = tl.minimum(tl.where(top_k == 0, columns, top_k), columns) - 1
    floor = tl.max(tl.where(column == last, ordered, nothing), axis=0)
    shares = tl.where(ordered >= floor, tl.exp(ordered - top), 0.0)
    before = (tl.cumsum(shares, axis=0) - shares) / tl.sum(shares, axis=0)
    is_kept = (before < tl.load(top_p_ptr + row)) & (ordered >= floor)
    floor = tl.min(tl.where(is_kept, ordered, float("inf")), axis=0)
    weights = tl.where(logits >= floor, tl.exp(logits - top), 0.0)
    counter = ((tl.load(count_ptr + row) + offset) << SHIFT) + column
    races = weights / -tl.log(tl.rand(tl.load(seed_ptr + row), counter))
    scores = tl.where(is_greedy, logits, tl.where(has, races, nothing))
    tl.store(ids_ptr + row, tl.argmax(scores, axis=0).to(tl.int64))
