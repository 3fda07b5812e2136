"""Stacks of matrices kept as numbers of 8 or 4 bits: [E, N, H] in a half or a quarter of
bfloat16's bytes.

    int8   one scale for each row, symmetric
    fp8    the same over floats of 4 bits of exponent and 3 of mantissa (e4m3)
    int4   a scale and an offset for each group of a row: (level - 8) * scale + offset

Products dequantize the one matrix that is multiplied; the stack stays as it is. Many rows by fp8
go through the tensor cores of a GPU that has them for it: inputs are rounded to fp8, too. On a CPU
few rows go through PyTorch's kernels that read the integers themselves (in bfloat16: inputs are
rounded to it, which is far less than the integers' own error). Four-bit levels lie as that kernel
wants them where it can read them at all: blocks of rows, and in a block byte [h, j] holds row j
below row j + block / 2.
"""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import CheckpointError
from models.quantized import Grouped

Format = Literal["int8", "fp8", "int4"]

GROUP = 64  # 4.5 bits a weight; 128 saves a quarter of a bit, and its error is a twelfth greater
MIDDLE = 8  # the level of `offset` itself
KERNEL_GROUPS = (32, 64, 128, 256)
KERNEL_BLOCKS = (64, 32)  # rows of a block: with AVX-512, with AVX2
KERNEL_COLUMNS = 16  # the eight-bit kernel reads beyond rows that are no multiple of it
KERNEL_ROWS = 32  # input rows up to which the CPU's kernels are quicker than dequantizing first
SMALLEST = 1e-10
RANDOM_LEVEL = 64.0  # of random levels of fp8, a seventh of the greatest
FIRST_WITH_FP8 = (8, 9)  # compute capability of Ada; Hopper is 9.0


class PackedMatrices(Protocol):
    """E matrices of N rows and H columns; `shape` is [E, N, H]."""

    shape: torch.Size

    def put(self, index: int, start: int, rows: Tensor | Grouped) -> None:
        """Fill rows of matrix `index` from `start` on, [n, H]; numbers are rounded, what is grouped
        already stays as it is.

        Raises:
            CheckpointError: grouped in another way than these matrices.
        """

    def randomize(self, spread: float, generator: torch.Generator) -> None:
        """Fill all of it with numbers of about this standard deviation."""

    def dequantized(self, index: int) -> Tensor:
        """[N, H] float32."""

    def product(self, index: int, inputs: Tensor) -> Tensor:
        """[T, H] -> [T, N], by matrix `index`."""

    def products(self, chosen: Tensor, inputs: Tensor) -> Tensor:
        """[P, H] -> [P, N], row p by matrix `chosen[p]`, which the host need not know."""


class ScaledRows(nn.Module):
    """Matrices whose rows have one scale each; see `PackedMatrices`.

    Attributes:
        levels: [E, N, H] of `dtype`, at most `largest` in size. scales: [E, N] bfloat16.
    """

    dtype: torch.dtype
    largest: float

    def __init__(self, num: int, rows: int, columns: int) -> None:
        super().__init__()
        self.shape = torch.Size((num, rows, columns))
        self.levels = _kept(num, rows, columns, dtype=self.dtype)
        self.scales = _kept(num, rows, dtype=torch.bfloat16)

    def put(self, index: int, start: int, rows: Tensor | Grouped) -> None:
        exact = rows.dequantized() if isinstance(rows, Grouped) else rows
        exact = exact.to(self.levels.device, torch.float32)
        scales = (exact.abs().amax(dim=1) / self.largest).clamp_min(SMALLEST).to(torch.bfloat16)
        levels = (exact / scales.to(torch.float32)[:, None]).clamp_(-self.largest, self.largest)
        place = slice(start, start + len(exact))
        self.levels[index, place] = self._rounded(levels)
        self.scales[index, place] = scales

    def randomize(self, spread: float, generator: torch.Generator) -> None:
        raise NotImplementedError

    def dequantized(self, index: int) -> Tensor:
        return self.levels[index].to(torch.float32) * self.scales[index, :, None]

    def product(self, index: int, inputs: Tensor) -> Tensor:
        levels, scales = self.levels[index], self.scales[index]
        return F.linear(inputs, levels.to(inputs.dtype)) * scales.to(inputs.dtype)

    def products(self, chosen: Tensor, inputs: Tensor) -> Tensor:
        levels = self.levels[chosen].to(inputs.dtype)  # [P, N, H]
        made = torch.bmm(levels, inputs.unsqueeze(-1)).squeeze(-1)
        return made * self.scales[chosen].to(inputs.dtype)

    def _rounded(self, levels: Tensor) -> Tensor:
        return levels.to(self.dtype)


class Int8Matrices(ScaledRows):
    """Integers; see `PackedMatrices`."""

    dtype = torch.int8
    largest = 127.0

    def randomize(self, spread: float, generator: torch.Generator) -> None:
        self.levels.random_(-127, 128, generator=generator)
        self.scales.fill_(spread / (254 / 12**0.5))

    def product(self, index: int, inputs: Tensor) -> Tensor:
        has_kernel = self.shape[2] % KERNEL_COLUMNS == 0
        if has_kernel and not inputs.is_cuda and len(inputs) <= KERNEL_ROWS:
            made: Tensor = torch._weight_int8pack_mm(
                inputs.to(torch.bfloat16), self.levels[index], self.scales[index]
            )
            return made.to(inputs.dtype)
        return super().product(index, inputs)

    def _rounded(self, levels: Tensor) -> Tensor:
        return levels.round().to(torch.int8)


class Float8Matrices(ScaledRows):
    """Floats of 8 bits; see `PackedMatrices`. Their error is relative to each number, not to the
    greatest of its row: three times that of int8 where numbers are normally distributed.
    """

    dtype = torch.float8_e4m3fn
    largest = 448.0

    def randomize(self, spread: float, generator: torch.Generator) -> None:
        for levels in self.levels:  # one at a time: floats take four times the memory
            numbers = torch.empty(levels.shape, dtype=torch.float32, device=levels.device)
            levels.copy_(numbers.normal_(0.0, RANDOM_LEVEL, generator=generator))
        self.scales.fill_(spread / RANDOM_LEVEL)

    def product(self, index: int, inputs: Tensor) -> Tensor:
        if len(inputs) <= KERNEL_ROWS or not _multiplies_fp8(inputs.device):
            return super().product(index, inputs)
        sizes = (inputs.abs().amax(dim=1, keepdim=True).float() / self.largest).clamp_min(SMALLEST)
        made: Tensor = torch._scaled_mm(
            (inputs / sizes).to(self.dtype),
            self.levels[index].t(),
            scale_a=sizes,
            scale_b=self.scales[index].float()[None],
            out_dtype=torch.bfloat16,
        )
        return made.to(inputs.dtype)


class Int4Matrices(nn.Module):
    """See `PackedMatrices`.

    Args:
        group: columns of a group; a smaller one is taken where it does not divide `columns`.
    """

    def __init__(self, num: int, rows: int, columns: int, *, group: int = GROUP) -> None:
        super().__init__()
        self.shape = torch.Size((num, rows, columns))
        self.group = gcd(group, columns)
        block = _kernel_block()
        if block is None or rows % block:
            block = None
        self._has_kernel = block is not None and self.group in KERNEL_GROUPS
        self._block = rows if block is None else block
        self.levels = _kept(
            num, rows // self._block, columns, self._block // 2, dtype=torch.uint8
        )  # [E, N / block, H, block / 2], two rows a byte
        self.steps = _kept(
            num, columns // self.group, rows, 2, dtype=torch.bfloat16
        )  # [E, H / group, N, 2], scale and offset

    def put(self, index: int, start: int, rows: Tensor | Grouped) -> None:
        levels, scales, offsets = self._grouped(rows)
        stop = start + len(levels)
        self.steps[index, :, start:stop, 0] = scales.t()
        self.steps[index, :, start:stop, 1] = offsets.t()
        first, last = start // self._block, -(-stop // self._block)
        place = self.levels[index, first:last]  # whole blocks: a byte is shared by two rows
        lying = _unpacked(place).transpose(1, 2).flatten(0, 1)  # [n, H]
        lying[start - first * self._block : stop - first * self._block] = levels
        place.copy_(_packed(lying.view(last - first, self._block, -1).transpose(1, 2)))

    def randomize(self, spread: float, generator: torch.Generator) -> None:
        self.levels.random_(0, 256, generator=generator)
        self.steps[..., 0] = spread / (15 / 12**0.5)
        self.steps[..., 1] = 0.0

    def dequantized(self, index: int) -> Tensor:
        blocks = self._numbers(self.levels[index], self.steps[index], torch.float32)
        return blocks.transpose(1, 2).flatten(0, 1)

    def product(self, index: int, inputs: Tensor) -> Tensor:
        levels, steps = self.levels[index], self.steps[index]
        if self._has_kernel and not inputs.is_cuda and len(inputs) <= KERNEL_ROWS:
            made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                inputs.to(torch.bfloat16), levels.view(self.shape[1], -1), self.group, steps
            )
            return made.to(inputs.dtype)
        blocks = self._numbers(levels, steps, inputs.dtype)  # [N / block, H, block]
        return torch.matmul(inputs, blocks).transpose(0, 1).flatten(1)

    def products(self, chosen: Tensor, inputs: Tensor) -> Tensor:
        blocks = self._numbers(self.levels[chosen], self.steps[chosen], inputs.dtype)
        made = torch.matmul(inputs[:, None, None], blocks)  # [P, N / block, 1, block]
        return made.flatten(1)

    def _grouped(self, rows: Tensor | Grouped) -> tuple[Tensor, Tensor, Tensor]:
        """Levels [n, H] uint8; scales and offsets, [n, H / group] bfloat16."""
        device = self.levels.device
        if isinstance(rows, Grouped):
            if rows.groups is not None:
                raise CheckpointError(
                    "groups whose columns are not in order (desc_act) can not stay packed;"
                    " unpacked, or in int8, they can be read"
                )
            group = rows.levels.shape[1] // rows.scales.shape[1]
            if group % self.group:
                raise CheckpointError(f"packed in groups of {group}, not of {self.group} columns")
            scales, zeros = (  # a wider group is several that are alike
                part.to(device).repeat_interleave(group // self.group, 1)
                for part in (rows.scales, rows.zeros)
            )
            offsets = (MIDDLE - zeros) * scales
            return rows.levels.to(device), scales.to(torch.bfloat16), offsets.to(torch.bfloat16)
        parts = torch.unflatten(rows.to(device, torch.float32), 1, (-1, self.group))
        low, high = parts.aminmax(dim=-1)
        scales = ((high - low) / (2 * MIDDLE - 1)).clamp_min(SMALLEST)
        offsets = (low + MIDDLE * scales).to(torch.bfloat16)
        scales = scales.to(torch.bfloat16)
        # Levels are chosen for scales and offsets as they are kept.
        levels = (parts - offsets.float()[..., None]) / scales.float()[..., None] + MIDDLE
        levels = levels.round_().clamp_(0, 2 * MIDDLE - 1)
        return levels.to(torch.uint8).flatten(1), scales, offsets

    def _numbers(self, levels: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """[..., N / block, H, block] of levels [..., N / block, H, block / 2] and steps
        [..., H / group, N, 2].
        """
        steps = torch.unflatten(steps.to(dtype), -2, (-1, self._block)).movedim(-4, -3)
        scales, offsets = steps.unsqueeze(-3).unbind(-1)  # [..., N / block, H / group, 1, block]
        numbers = _unpacked(levels).to(dtype).sub_(MIDDLE)
        numbers = torch.unflatten(numbers, -2, (-1, self.group))
        return torch.addcmul(offsets, numbers, scales).flatten(-3, -2)


def _kept(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=False)


def _unpacked(levels: Tensor) -> Tensor:
    """[..., H, block / 2] bytes -> [..., H, block] levels."""
    return torch.cat((levels & 0x0F, levels >> 4), dim=-1)


def _packed(levels: Tensor) -> Tensor:
    """[..., H, block] levels -> [..., H, block / 2] bytes."""
    low, high = levels.chunk(2, dim=-1)
    return low | (high << 4)


@cache
def _multiplies_fp8(device: torch.device) -> bool:
    """Whether a device multiplies matrices of fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FIRST_WITH_FP8


@cache
def _kernel_block() -> int | None:
    """Rows of a block as this CPU's four-bit kernel reads them; None where it reads another
    layout.
    """
    rows, columns = KERNEL_BLOCKS[0], 2
    with torch.device("cpu"):  # asked while a model is built on the meta device
        levels = (torch.arange(rows * columns, dtype=torch.int32) * 7 % 16).view(rows, columns)
    theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 2).flatten()
    for block in KERNEL_BLOCKS:
        ours = _packed(levels.to(torch.uint8).view(-1, block, columns).transpose(1, 2))
        if torch.equal(ours.flatten(), theirs):
            return block
    return None
