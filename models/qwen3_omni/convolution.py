"""One-dimensional convolutions of few positions, without a batch, as a vocoder's step needs them.

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
    """[C, L] -> [out, L - (kernel - 1) * dilation]; weight [out, C, kernel], no padding."""
    out_channels, channels, kernel = weight.shape
    length = x.shape[1] - (kernel - 1) * dilation
    if x.is_cuda or channels * kernel * length > MAX_WINDOW_VALUES:
        return F.conv1d(x, weight, bias, dilation=dilation)
    matrix, (row, column) = weight.view(out_channels, -1), x.stride()
    if length <= MAX_ROWS:
        windows = x.as_strided((length, channels, kernel), (column, row, dilation * column))
        return F.linear(windows.reshape(length, -1), matrix, bias).t().contiguous()
    windows = x.as_strided((channels, kernel, length), (row, dilation * column, column))
    return torch.addmm(bias[:, None], matrix, windows.reshape(channels * kernel, length))


def conv_transpose1d(x: Tensor, weight: Tensor, bias: Tensor, *, stride: int) -> Tensor:
    """Upsample by `stride`: weight [C, out, stride] or [C, out, 2 * stride].

    With a kernel of two strides the first and the last output block, which lack an input, are left
    out: [C, L] -> [out, (L - 1) * stride]; else [out, L * stride].
    """
    channels, out_channels, kernel = weight.shape
    if x.is_cuda or x.shape[1] > MAX_TRANSPOSED_INPUTS:
        return F.conv_transpose1d(x, weight, bias, stride=stride, padding=kernel - stride)
    blocks = x.t() @ weight.view(channels, -1)  # [L, out * kernel]
    blocks = blocks.view(-1, out_channels, kernel)
    if kernel > stride:
        blocks = blocks[:-1, :, stride:] + blocks[1:, :, :stride]  # [L - 1, out, stride]
    joined = blocks.transpose(0, 1).reshape(out_channels, -1)
    return joined.add_(bias[:, None])
