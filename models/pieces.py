"""The token log of one context: pieces of one kind each, with their positions, and where they lie.

A `Piece` is what an encoder or the tokenizer made of one part of a message. Its positions count
from the start of its message, so that a log can be replayed behind another beginning without
encoding anything again. `TokenLog` is the placed sequence; how much of it is in a KV cache is the
context's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["text", "audio", "image", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some tokens of one kind.

    Attributes:
        ids: [n] token ids (placeholders where the kind is not text).
        positions: [3, n] float32, rows T, H, W, counted from the start of the message.
        talker_positions: the same in the talker's context; None where the talker never sees the
            piece.
        embeds: [n, hidden] what the encoder made; None for text (looked up).
        deepstack: [num_levels, n, hidden] for pictures; None otherwise.
    """

    kind: Kind
    ids: tuple[int, ...]
    positions: Tensor
    talker_positions: Tensor | None = None
    embeds: Tensor | None = None
    deepstack: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, stop: int) -> Piece:
        """Tokens `start` to `stop` of this piece."""
        if start == 0 and stop == len(self):
            return self
        talker = self.talker_positions
        return replace(
            self,
            ids=self.ids[start:stop],
            positions=self.positions[:, start:stop],
            talker_positions=None if talker is None else talker[:, start:stop],
            embeds=None if self.embeds is None else self.embeds[start:stop],
            deepstack=None if self.deepstack is None else self.deepstack[:, start:stop],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A piece in the log: its first token's index, and where its message starts in both position
    spaces.
    """

    piece: Piece
    start: int
    talker_start: int
    base: float
    talker_base: float

    @property
    def stop(self) -> int:
        return self.start + len(self.piece)

    @property
    def talker_stop(self) -> int:
        seen = self.piece.talker_positions is not None
        return self.talker_start + (len(self.piece) if seen else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillBatch:
    """What one prefill call needs of `n` tokens of the log, in log order.

    Attributes:
        ids: [n] int64. positions: [3, n]. media: pieces with encoder output and their first index.
        talker_rows: [m] int64, the tokens that the talker sees, too; talker_positions: [3, m].
        talker_media: [k] int64, which of those m are media.
    """

    ids: Tensor
    positions: Tensor
    media: tuple[tuple[int, Piece], ...]
    talker_rows: Tensor
    talker_positions: Tensor
    talker_media: Tensor


def joined(batches: Sequence[PrefillBatch]) -> PrefillBatch:
    """Batches of several logs as one, one after the other."""
    if len(batches) == 1:
        return batches[0]
    starts = [0, *accumulate(len(batch.ids) for batch in batches)]
    talker_starts = [0, *accumulate(len(batch.talker_rows) for batch in batches)]
    return PrefillBatch(
        ids=torch.cat([batch.ids for batch in batches]),
        positions=torch.cat([batch.positions for batch in batches], dim=1),
        media=tuple(
            (start + first, piece)
            for batch, start in zip(batches, starts, strict=False)
            for first, piece in batch.media
        ),
        talker_rows=_behind(starts, [batch.talker_rows for batch in batches]),
        talker_positions=torch.cat([batch.talker_positions for batch in batches], dim=1),
        talker_media=_behind(talker_starts, [batch.talker_media for batch in batches]),
    )


def _behind(starts: Sequence[int], parts: Sequence[Tensor]) -> Tensor:
    """Indexes of several parts as those of the whole."""
    return torch.cat([start + part for start, part in zip(starts, parts, strict=False)])


class TokenLog:
    """An append-only sequence of placed pieces that can be cut back to any token."""

    def __init__(self) -> None:
        self._placed: list[Placed] = []

    def __len__(self) -> int:
        return self._placed[-1].stop if self._placed else 0

    @property
    def talker_length(self) -> int:
        """How many of the log's tokens the talker sees."""
        return self._placed[-1].talker_stop if self._placed else 0

    def append(self, piece: Piece, *, base: float, talker_base: float) -> None:
        """Place a piece of a message that starts at these positions."""
        if len(piece):
            self._placed.append(
                Placed(
                    piece=piece,
                    start=len(self),
                    talker_start=self.talker_length,
                    base=base,
                    talker_base=talker_base,
                )
            )

    def truncate(self, num_tokens: int) -> None:
        """Cut the log back to its first `num_tokens` tokens."""
        while self._placed and self._placed[-1].start >= num_tokens:
            self._placed.pop()
        if self._placed and self._placed[-1].stop > num_tokens:
            last = self._placed.pop()
            self._placed.append(replace(last, piece=last.piece.cut(0, num_tokens - last.start)))

    def talker_length_at(self, num_tokens: int) -> int:
        """How many of the first `num_tokens` tokens the talker sees."""
        for placed in reversed(self._placed):
            if placed.start < num_tokens:
                inside = min(num_tokens, placed.stop) - placed.start
                seen = placed.piece.talker_positions is not None
                return placed.talker_start + (inside if seen else 0)
        return 0

    def count(self, kinds: tuple[Kind, ...], *, stop: int | None = None) -> int:
        """Tokens of these kinds; `stop`: among so many first ones."""
        end = len(self) if stop is None else stop
        return sum(
            min(len(placed.piece), max(0, end - placed.start))
            for placed in self._placed
            if placed.piece.kind in kinds
        )

    def ids(self) -> list[int]:
        """All token ids."""
        return [token for placed in self._placed for token in placed.piece.ids]

    def text_at(self, index: int) -> tuple[int, float]:
        """A text token and its position, the same in all rows."""
        placed = self._from(index)[0]
        assert placed.piece.kind == "text", placed.piece.kind
        inside = index - placed.start
        return placed.piece.ids[inside], float(placed.piece.positions[0, inside]) + placed.base

    def batch(self, start: int, max_tokens: int, device: torch.device) -> PrefillBatch:
        """At most `max_tokens` tokens from index `start` on, ready for one prefill call."""
        parts: list[tuple[Piece, float, float]] = []
        room = max_tokens
        for placed in self._from(start):
            low = max(0, start - placed.start)
            piece = placed.piece.cut(low, min(len(placed.piece), low + room))
            parts.append((piece, placed.base, placed.talker_base))
            room -= len(piece)
            if room == 0:
                break
        return _assemble(parts, device)

    def _from(self, start: int) -> list[Placed]:
        index = len(self._placed)
        while index and self._placed[index - 1].stop > start:
            index -= 1
        return self._placed[index:]


def _assemble(parts: list[tuple[Piece, float, float]], device: torch.device) -> PrefillBatch:
    ids: list[int] = []
    positions: list[Tensor] = []
    media: list[tuple[int, Piece]] = []
    talker_rows: list[int] = []
    talker_positions: list[Tensor] = []
    talker_media: list[int] = []
    for piece, base, talker_base in parts:
        first = len(ids)
        if piece.embeds is not None:
            media.append((first, piece))
        if piece.talker_positions is not None:
            if piece.embeds is not None:
                talker_media.extend(range(len(talker_rows), len(talker_rows) + len(piece)))
            talker_rows.extend(range(first, first + len(piece)))
            talker_positions.append(piece.talker_positions + talker_base)
        ids.extend(piece.ids)
        positions.append(piece.positions + base)
    empty = torch.zeros(3, 0)
    return PrefillBatch(
        ids=torch.tensor(ids, dtype=torch.long, device=device),
        positions=torch.cat(positions or [empty], 1).to(device),
        media=tuple(media),
        talker_rows=torch.tensor(talker_rows, dtype=torch.long, device=device),
        talker_positions=torch.cat(talker_positions or [empty], 1).to(device),
        talker_media=torch.tensor(talker_media, dtype=torch.long, device=device),
    )
