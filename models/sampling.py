"""From logits to one token id, on the device: penalty, temperature, top-k, top-p, draw.

The order of the steps is that of Hugging Face's logits processors. Nothing here waits for the
device: ids stay tensors until the engine reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import RequestError

NEGATIVE_INFINITY = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How ids are drawn. The defaults draw from the plain softmax.

    Attributes:
        temperature: divides the logits; 0 means greedy.
        top_k: only the k best logits stay (equals of the k-th included); 0 keeps all.
        top_p: only the best ids whose probabilities reach this sum stay; 1 keeps all.
        repetition_penalty: factor against ids drawn before.
        min_new_tokens: the end is not drawn before so many ids were.
        do_sample: False takes the best id (penalty and minimum still count).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    do_sample: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: a value is outside its range.
        """
        if not 0.0 <= self.temperature < float("inf"):
            raise RequestError(f"temperature is {self.temperature}; it must be 0 or more")
        if self.top_k < 0:
            raise RequestError(f"top_k is {self.top_k}; it must be 0 (off) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise RequestError(f"top_p is {self.top_p}; it must be over 0 and at most 1")
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise RequestError(
                f"repetition_penalty is {self.repetition_penalty}; it must be over 0"
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the draw needs no random numbers."""
        return not self.do_sample or self.temperature == 0.0


class Sampler:
    """Draws ids by one set of settings.

    Args:
        settings: how to draw.
        generator: source of the random numbers, on the device of the logits; None: torch's own.
        end_ids: ids that `min_new_tokens` holds back.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        generator: torch.Generator | None = None,
        *,
        end_ids: Sequence[int] = (),
    ) -> None:
        self.settings = settings
        self.generator = generator
        self.end_ids = tuple(end_ids)

    @property
    def seed(self) -> int:
        """What the random numbers follow from; 0 where they are torch's own."""
        return 0 if self.generator is None else self.generator.initial_seed()

    def __call__(self, logits: Tensor, seen: Sequence[int] = ()) -> Tensor:
        """Draw one id.

        Args:
            logits: [vocab] float32; stay as they are.
            seen: ids drawn so far: what the penalty is against, and what `min_new_tokens` counts.

        Returns:
            The id, [] int64 on the device of the logits.
        """
        logits = self._penalised(logits, seen)
        return logits.argmax() if self.settings.is_greedy else self._drawn(logits)

    def num_best(self, seen: Sequence[int]) -> int | None:
        """How many of the greatest logits a draw can depend on; None: all of them."""
        settings = self.settings
        best = 1 if settings.is_greedy else settings.top_k
        if best == 0 or settings.repetition_penalty < 1.0:
            return None
        if settings.repetition_penalty > 1.0:  # those drawn before may fall behind as many others
            best += len(set(seen))
        return best + (len(self.end_ids) if len(seen) < settings.min_new_tokens else 0)

    def distribution(self, logits: Tensor, seen: Sequence[int] = ()) -> Tensor:
        """Probabilities [vocab] that a call draws from (greedy: chooses from)."""
        weights, ids = candidates(self._penalised(logits, seen), self.settings)
        if ids is not None:
            weights = torch.zeros_like(logits).scatter(0, ids, weights)
        return weights / weights.sum()

    def _penalised(self, logits: Tensor, seen: Sequence[int]) -> Tensor:
        penalty = self.settings.repetition_penalty
        if penalty != 1.0 and seen:
            ids = torch.tensor(seen, device=logits.device)
            scores = logits[ids]
            changed = torch.where(scores < 0, scores * penalty, scores / penalty)
            logits = logits.scatter(0, ids, changed)
        if self.end_ids and len(seen) < self.settings.min_new_tokens:
            ids = torch.tensor(self.end_ids, device=logits.device)
            logits = logits.index_fill(0, ids, NEGATIVE_INFINITY)
        return logits

    def _drawn(self, logits: Tensor) -> Tensor:
        """Exponential races: the smallest of Exp(1) / p wins with probability p, without a sync."""
        weights, ids = candidates(logits, self.settings)
        races = torch.empty_like(weights).exponential_(generator=self.generator)
        winner = (weights / races).argmax()
        return winner if ids is None else ids[winner]


def draw_rows(samplers: Sequence[Sampler], logits: Tensor) -> Tensor:
    """One id for each row of [B, vocab] float32, drawn as each sampler alone would draw its first,
    by its own random numbers: [B] int64.
    """
    settings = samplers[0].settings
    if len(samplers) == 1:
        return samplers[0](logits[0])[None]
    if any(other.settings != settings or other.end_ids for other in samplers):
        return torch.stack([draw(row) for draw, row in zip(samplers, logits, strict=True)])
    if settings.is_greedy:
        return logits.argmax(dim=-1)
    weights, ids = candidates(logits, settings)  # [B, k]
    races = torch.empty_like(weights)
    for sampler, row in zip(samplers, races, strict=True):
        row.exponential_(generator=sampler.generator)
    winners = (weights / races).argmax(dim=-1, keepdim=True)
    return (winners if ids is None else ids.gather(1, winners))[:, 0]


def candidates(logits: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor | None]:
    """What temperature, top-k and top-p leave: weights in proportion to probability, and ids.

    Both are [..., top_k] where top-k is on, else [..., vocab]; ids are None where they are the
    places themselves. Dropped ids have the weight 0.
    """
    if settings.temperature not in (0.0, 1.0):
        logits = logits / settings.temperature
    ids = None
    if 0 < settings.top_k < logits.shape[-1]:
        logits, ids = logits.topk(settings.top_k)  # best first
    elif settings.top_p < 1.0:
        logits, ids = logits.sort(descending=True)
    weights = logits.softmax(dim=-1)
    if settings.top_p < 1.0:
        better = weights.cumsum(dim=-1) - weights  # the sum of all better ids
        weights = weights.masked_fill(better >= settings.top_p, 0.0)
    return weights, ids
