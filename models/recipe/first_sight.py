"""First values of the vision encoder: it begins by looking at patterns, and at what lies nearby.

Random weights see neither: a patch's 1,536 numbers are mixed up, and every patch attends to all
others alike. In 400 steps such an encoder learnt colours and hardly a shape. So patches begin as
their low spatial frequencies in brightness and two colours (a discrete cosine transform), and the
biases of queries and keys make each head look a little to one side, as a convolution does: rotary
positions turn them, so their product falls with the distance from where the head looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from models.qwen3_omni.vision_encoder import VisionBlock, VisionEncoder

COLOUR_AXES = ((1 / 3, 1 / 3, 1 / 3), (1 / 2, -1 / 2, 0.0), (-1 / 4, -1 / 4, 1 / 2))
COLOUR_SHARES = (0.5, 0.25, 0.25)  # of the hidden units
PATCH_GAIN = 0.15  # a patch's features are then about 1
SLOPE = 1.3  # pictures hold less of higher frequencies
LOOKS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))  # rows, columns of each head
STRIDES = (0.8, 1.6)  # patches, in turn from layer to layer
BIAS = 3.3
NUM_FREQUENCIES = 3  # of each axis; slower ones hardly turn within a picture
CONTENT_SHARE = 0.5
POSITION_STD = 0.02


@torch.no_grad()
def look_nearby(encoder: VisionEncoder) -> None:
    """Give an encoder with random weights and its constants these first values."""
    _see_patterns(encoder.patch_embed.proj, encoder.config.patch_size)
    nn.init.normal_(encoder.pos_embed.weight, std=POSITION_STD)
    for index, block in enumerate(cast(Iterable[VisionBlock], encoder.blocks)):
        _look_aside(block, encoder.inv_freq, STRIDES[index % len(STRIDES)])


def _see_patterns(layer: nn.Linear, side: int) -> None:
    """[hidden, channels * frames * side * side]; both frames alike."""
    rows: list[Tensor] = []
    for share, axis in zip(COLOUR_SHARES, COLOUR_AXES, strict=True):
        colour = torch.tensor(axis) / torch.tensor(axis).norm()
        for u, v in _lowest(round(share * layer.out_features)):
            wave = torch.outer(_cosine(u, side), _cosine(v, side))
            pattern = colour[:, None, None, None] * wave.expand(1, 2, side, side) / math.sqrt(2)
            rows.append(PATCH_GAIN * (1 + u + v) ** SLOPE * pattern.flatten())
    known = torch.stack(rows)[: layer.out_features]
    layer.weight[: len(known)] = known


def _lowest(count: int) -> list[tuple[int, int]]:
    pairs = [(u, v) for u in range(16) for v in range(16)]
    return sorted(pairs, key=lambda pair: (pair[0] + pair[1], pair))[:count]


def _cosine(frequency: int, side: int) -> Tensor:
    """One row of the transform, of length 1."""
    wave = torch.cos(math.pi * frequency * (torch.arange(side) + 0.5) / side)
    made: Tensor = wave / wave.norm()
    return made


def _look_aside(block: VisionBlock, inv_freq: Tensor, stride: float) -> None:
    attention = block.attn
    hidden = attention.proj.in_features
    size = hidden // attention.num_heads
    attention.qkv.weight[: 2 * hidden] *= CONTENT_SHARE
    biases = attention.qkv.bias.view(3, attention.num_heads, 2, 2, size // 4)  # halves, axes
    for head in range(attention.num_heads):
        look = LOOKS[head % len(LOOKS)]
        for axis in range(2):
            for place in range(NUM_FREQUENCIES):
                angle = look[axis] * stride * float(inv_freq[place])
                biases[0, head, 0, axis, place] = BIAS * math.cos(angle)
                biases[0, head, 1, axis, place] = BIAS * math.sin(angle)
                biases[1, head, 0, axis, place] = BIAS
