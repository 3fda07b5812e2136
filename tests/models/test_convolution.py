"""Convolutions of few positions: every form gives what the library gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.qwen3_omni.convolution import conv1d, conv_transpose1d


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("dilation", [1, 3, 9])
@pytest.mark.parametrize("length", [1, 8, 9, 100, 4_000, 10_000])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_conv1d(kernel: int, dilation: int, length: int, num_rows: int) -> None:
    x = random(12, num_rows, length + (kernel - 1) * dilation)
    weight, bias = random(5, 12, kernel, seed=1), random(5, seed=2)
    expected = F.conv1d(x.transpose(0, 1), weight, bias, dilation=dilation).transpose(0, 1)
    ours = conv1d(x, weight, bias, dilation=dilation)
    assert ours.shape == (5, num_rows, length)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    view = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    torch.testing.assert_close(conv1d(view, weight, bias, dilation=dilation), ours)


@pytest.mark.parametrize("stride", [2, 3, 8])
@pytest.mark.parametrize("strides_per_kernel", [1, 2])
@pytest.mark.parametrize("length", [2, 5, 48, 49, 300])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_conv_transpose1d(stride: int, strides_per_kernel: int, length: int, num_rows: int) -> None:
    kernel = stride * strides_per_kernel
    x, weight, bias = random(12, num_rows, length), random(12, 5, kernel, seed=1), random(5, seed=2)
    expected = F.conv_transpose1d(x.transpose(0, 1), weight, bias, stride=stride).transpose(0, 1)
    expected = expected[..., kernel - stride : expected.shape[2] - (kernel - stride)]
    ours = conv_transpose1d(x, weight, bias, stride=stride)
    assert ours.shape == (5, num_rows, (length + 1 - strides_per_kernel) * stride)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
