"""Code2Wav over whole sequences, in batches and with gradients: what training runs.

The streaming forward of `models.qwen3_omni.vocoder` holds constants without gradients and takes one
stream; this one uses the same modules' weights and makes the same samples (a test holds it to
that). Nothing is loaded or trained here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from models.qwen3_omni.vocoder import (
    CausalConv,
    CausalTransposedConv,
    Code2Wav,
    ConvNextBlock,
    DecoderBlock,
    ResidualUnit,
    SnakeBeta,
    UpsampleStage,
)
from models.recipe.batches import run_batch


def render(vocoder: Code2Wav, codes: Tensor) -> Tensor:
    """[B, n, num_quantizers] int64 -> [B, num_samples(n)], not clamped."""
    hidden = vocoder.code_embedding(codes + vocoder.code_offset).mean(dim=2)  # [B, n, H]
    x = run_batch(vocoder.pre_transformer, hidden).hidden.transpose(1, 2)  # [B, H, n]
    for stage in cast(Iterable[UpsampleStage], vocoder.upsample):
        transposed, conv_next = cast(tuple[CausalTransposedConv, ConvNextBlock], stage)
        x = _conv_next(conv_next, _upsampled(transposed, x))
    first, *blocks, activation, last = vocoder.decoder
    x = _convolved(cast(CausalConv, first), x)
    for block in cast(list[DecoderBlock], blocks):
        x = _decoded(block, x)
    return _convolved(cast(CausalConv, last), _waved(cast(SnakeBeta, activation), x))[:, 0]


# ------------------------------------------------------------------------------------ convolutions
def _decoded(block: DecoderBlock, x: Tensor) -> Tensor:
    snake, upsample, *units = block.block
    x = _upsampled(cast(CausalTransposedConv, upsample), _waved(cast(SnakeBeta, snake), x))
    for unit in cast(list[ResidualUnit], units):
        x = _residual(unit, x)
    return x


def _convolved(convolution: CausalConv, x: Tensor) -> Tensor:
    inner = convolution.conv
    padding = (inner.kernel_size[0] - 1) * inner.dilation[0]
    out: Tensor = inner(F.pad(x, (padding, 0)))
    return out


def _upsampled(convolution: CausalTransposedConv, x: Tensor) -> Tensor:
    """With a kernel of two strides the first and the last block lack an input: left out."""
    inner, stride = convolution.conv, convolution.stride
    cut = inner.kernel_size[0] - stride
    return F.conv_transpose1d(x, inner.weight, inner.bias, stride=stride, padding=cut)


def _conv_next(block: ConvNextBlock, x: Tensor) -> Tensor:
    depthwise = block.dwconv.conv
    mixed = depthwise(F.pad(x, (depthwise.kernel_size[0] - 1, 0))).transpose(1, 2)  # [B, L, C]
    mixed = cast(Tensor, block.pwconv2(F.gelu(block.pwconv1(block.norm(mixed)))))
    return x + block.gamma[:, None] * mixed.transpose(1, 2)


def _residual(unit: ResidualUnit, x: Tensor) -> Tensor:
    inner = _convolved(unit.conv1, _waved(unit.act1, x))
    return x + _convolved(unit.conv2, _waved(unit.act2, inner))


def _waved(snake: SnakeBeta, x: Tensor) -> Tensor:
    frequency, amplitude = snake.alpha.exp()[:, None], 1.0 / (snake.beta.exp()[:, None] + 1e-9)
    return x + amplitude * torch.sin(x * frequency).square()
