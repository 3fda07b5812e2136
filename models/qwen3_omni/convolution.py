"""One-dimensional convolutions of few positions, as a vocoder's step needs them.

Several streams lie side by side, [channels, B, L], so that one matrix product serves all of them.
On a CPU the library's kernels are made for long inputs: with a frame's few positions they are
several times slower than the same sums as one matrix product (measured on one thread: 8 x for the
first transposed convolution of the published size, 3 x for dilated ones of few channels; a whole
step of that size 1.9 x). Elsewhere, and where the copied windows would leave the cache, the
library's kernels are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROWS = 8  # up to here positions make good rows of a matrix product, more make good columns
MAX_TRANSPOSED_INPUTS = 48
MAX_WINDOW_VALUES = 400_000  # copied windows of 1.6 MB; larger ones leave the cache


def conv1d(x: Tensor, weight: Tensor, bias: Tensor, *, dilation: int = 1) -> Tensor:
    """[C, B, L] -> [out, B, L - (kernel - 1) * dilation]; weight [out, C, kernel], no padding."""
    out_channels, channels, kernel = weight.shape
    num_rows, length = x.shape[1], x.shape[2] - (kernel - 1) * dilation
    if x.is_cuda or channels * kernel * length > MAX_WINDOW_VALUES:
        return F.conv1d(x.transpose(0, 1), weight, bias, dilation=dilation).transpose(0, 1)
    if channels * kernel * length * num_rows > MAX_WINDOW_VALUES:
        rows = torch.split(x, MAX_WINDOW_VALUES // (channels * kernel * length), dim=1)
        return torch.cat([conv1d(some, weight, bias, dilation=dilation) for some in rows], dim=1)
    matrix, (channel, row, column) = weight.view(out_channels, -1), x.stride()
    if length * num_rows <= MAX_ROWS:
        windows = x.as_strided(
            (num_rows, length, channels, kernel), (row, column, channel, dilation * column)
        )
        made = F.linear(windows.reshape(num_rows * length, -1), matrix, bias).t().contiguous()
    else:
        windows = x.as_strided(
            (channels, kernel, num_rows, length), (channel, dilation * column, row, column)
        )
        made = torch.addmm(bias.unsqueeze(1), matrix, windows.reshape(channels * kernel, -1))
    return made.view(out_channels, num_rows, length)


def conv_transpose1d(x: Tensor, weight: Tensor, bias: Tensor, *, stride: int) -> Tensor:
    """Upsample by `stride`: weight [C, out, stride] or [C, out, 2 * stride].

    With a kernel of two strides the first and the last output block, which lack an input, are left
    out: [C, B, L] -> [out, B, (L - 1) * stride]; else [out, B, L * stride].
    """
    channels, out_channels, kernel = weight.shape
    num_rows, length = x.shape[1:]
    if x.is_cuda or length > MAX_TRANSPOSED_INPUTS:
        made = F.conv_transpose1d(
            x.transpose(0, 1), weight, bias, stride=stride, padding=kernel - stride
        )
        return made.transpose(0, 1)
    blocks = x.flatten(1).t() @ weight.view(channels, -1)  # [B * L, out * kernel]
    blocks = blocks.view(num_rows, length, out_channels, kernel)
    if kernel > stride:
        blocks = blocks[:, :-1, :, stride:] + blocks[:, 1:, :, :stride]  # [B, L - 1, out, stride]
    joined = blocks.permute(2, 0, 1, 3).reshape(out_channels, num_rows, -1)
    return joined.add_(bias[:, None, None])
