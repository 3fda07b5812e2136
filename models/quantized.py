"""Matrices of few bits as published checkpoints pack them, read.

Plain PyTorch; nothing here multiplies packed weights (`models.packed_matrices` does). Layouts
follow AutoAWQ (`gemm`), AutoGPTQ (version 1 stores zero points less one, `gptq_v2` as they are) and
compressed-tensors (`pack-quantized`, and numbers of 8 bits with scales). Which of them a checkpoint
has: `models.packing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import CheckpointError

BITS = 4
PER_WORD = 32 // BITS
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where the columns of a word lie in it


@dataclass(frozen=True, slots=True)
class Grouped:
    """A matrix [N, H] of few levels with a scale and a zero point for each group of a row.

    Attributes:
        levels: [N, H] uint8. scales: [N, H / group] float32. zeros: the same shape.
        groups: [H] int64, each column's group, where they are not in order; else None.
    """

    levels: Tensor
    scales: Tensor
    zeros: Tensor
    groups: Tensor | None = None

    def dequantized(self) -> Tensor:
        """[N, H] float32."""
        if self.groups is not None:
            shifted = self.levels.to(torch.float32) - self.zeros[:, self.groups]
            return shifted * self.scales[:, self.groups]
        group = self.levels.shape[1] // self.scales.shape[1]
        rows, columns = self.levels.shape
        levels = self.levels.to(torch.float32).view(rows, -1, group)
        made = (levels - self.zeros[..., None]) * self.scales[..., None]
        return made.view(rows, columns)


def read_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Grouped:
    """A matrix as AWQ publishes it.

    Args:
        qweight: [H, N / 8] int32. qzeros: [H / group, N / 8] int32. scales: [H / group, N].

    Raises:
        CheckpointError: shapes that do not fit together.
    """
    _check(qweight.shape[1] == qzeros.shape[1], qweight, qzeros, scales)
    _check(scales.shape == (qzeros.shape[0], PER_WORD * qzeros.shape[1]), qweight, qzeros, scales)
    _check(qweight.shape[0] % qzeros.shape[0] == 0, qweight, qzeros, scales)
    levels, zeros = (_columns(words, _AWQ_ORDER) for words in (qweight, qzeros))
    return Grouped(
        levels.t().contiguous(),
        scales.t().to(torch.float32).contiguous(),
        zeros.t().to(torch.float32).contiguous(),
    )


def read_gptq(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor, *, is_v2: bool = False
) -> Grouped:
    """A matrix as GPTQ publishes it.

    Args:
        qweight: [H / 8, N] int32. qzeros: [groups, N / 8] int32. scales: [groups, N].
        g_idx: [H] int, each input's group (they are not in order where `desc_act` was on).
        is_v2: zero points are stored as they are, not less one.

    Raises:
        CheckpointError: shapes that do not fit together.
    """
    columns, num_groups = qweight.shape[0] * PER_WORD, qzeros.shape[0]
    _check(g_idx.shape == (columns,), qweight, qzeros, scales)
    _check(scales.shape == (num_groups, PER_WORD * qzeros.shape[1]), qweight, qzeros, scales)
    _check(scales.shape[1] == qweight.shape[1], qweight, qzeros, scales)
    plain = tuple(range(PER_WORD))
    levels = _columns(qweight.t(), plain)  # [N, H]
    zeros = _columns(qzeros, plain).to(torch.float32) + (0.0 if is_v2 else 1.0)
    groups = g_idx.long()
    group_size = -(-columns // num_groups)
    is_in_order = torch.equal(groups, torch.arange(columns, device=groups.device) // group_size)
    return Grouped(
        levels.contiguous(),
        scales.t().to(torch.float32).contiguous(),
        zeros.t().contiguous(),
        groups=None if is_in_order and columns % num_groups == 0 else groups,
    )


def read_packed(
    packed: Tensor,
    scales: Tensor,
    shape: Tensor,
    *,
    bits: int = BITS,
    zeros: Tensor | None = None,
    groups: Tensor | None = None,
) -> Grouped:
    """A matrix of 4 or 8 bits as compressed-tensors publishes it: so many levels.

    Args:
        packed: [N, ceil(H / P)] int32, P = 32 / bits. scales: [N, groups]. shape: N and H.
        zeros: [ceil(N / P), groups] int32; None: symmetric. groups: as `g_idx` of `read_gptq`.

    Raises:
        CheckpointError: shapes that do not fit together.
    """
    _check(shape.numel() == 2, packed, scales, shape)
    rows, columns = (int(size) for size in shape)
    per_word = 32 // bits
    _check(packed.shape == (rows, -(-columns // per_word)), packed, scales)
    _check(scales.dim() == 2 and len(scales) == rows, packed, scales)
    num_groups = scales.shape[1]
    plain = tuple(range(per_word))
    levels = _columns(packed, plain, bits)[:, :columns].contiguous()
    if zeros is None:
        middles = torch.full(scales.shape, 2.0 ** (bits - 1))
    else:
        _check(zeros.shape == (-(-rows // per_word), num_groups), packed, scales, zeros)
        middles = _columns(zeros.t(), plain, bits).t()[:rows].to(torch.float32).contiguous()
    if groups is not None:
        _check(groups.shape == (columns,), packed, scales, groups)
        return Grouped(levels, scales.to(torch.float32), middles, groups=groups.long())
    _check(columns % num_groups == 0, packed, scales)
    return Grouped(levels, scales.to(torch.float32), middles)


def read_scaled(
    numbers: Tensor,
    scales: Tensor,
    *,
    zeros: Tensor | None = None,
    block: tuple[int, int] | None = None,
) -> Tensor:
    """A matrix of whole or floating numbers of 8 bits: [N, H] float32.

    Args:
        numbers: [N, H]. scales: one, or of each block, [n, h]. zeros: of numbers, as many.
        block: rows and columns that share a scale; None: the matrix in n times h equal parts.

    Raises:
        CheckpointError: shapes that do not fit together.
    """
    _check(numbers.dim() == 2 and scales.numel() > 0, numbers, scales)
    blocks = scales.reshape(1, 1) if scales.numel() == 1 else scales
    _check(blocks.dim() == 2, numbers, scales)
    sizes = []
    for axis in (0, 1):
        length, count = numbers.shape[axis], blocks.shape[axis]
        size = length // count if block is None or scales.numel() == 1 else block[axis]
        _check(size > 0 and -(-length // size) == count, numbers, scales)
        sizes.append(size)
    wide = numbers.to(torch.float32)
    if zeros is not None:
        _check(zeros.numel() == scales.numel(), numbers, scales, zeros)
        wide = wide - _spread(zeros.view_as(blocks), sizes, wide.shape)
    return wide * _spread(blocks, sizes, wide.shape)


def _spread(blocks: Tensor, sizes: list[int], shape: torch.Size) -> Tensor:
    """[n, h] -> [N, H] float32, each for its block."""
    spread = blocks.to(torch.float32)
    for axis, size in enumerate(sizes):
        spread = spread.repeat_interleave(size, axis).narrow(axis, 0, shape[axis])
    return spread


def _columns(words: Tensor, order: tuple[int, ...], bits: int = BITS) -> Tensor:
    """[R, C] int32 -> [R, C * 32 / bits] uint8: column i of a word lies at bit bits * order[i]."""
    shifts = bits * torch.tensor(order, device=words.device)
    parts: Tensor = (words[..., None] >> shifts) & (2**bits - 1)
    return parts.flatten(1).to(torch.uint8)


def _check(fits: bool, *tensors: Tensor) -> None:
    if not fits:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise CheckpointError(f"quantized tensors do not fit together: {shapes}")
