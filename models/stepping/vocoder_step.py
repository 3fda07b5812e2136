"""One codec frame of each of many streams through the vocoder, with all state on the device.

State lies in slots, one for each stream; a step names the slots of its rows. The first frame of a
stream has another shape than the later ones (its transposed convolutions lack a past), so the two
are two steps. The plain path for one stream and any number of frames is
`models.qwen3_omni.vocoder`, whose mathematics this is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.qwen3_omni.vocoder import (
    CausalConv,
    CausalTransposedConv,
    Code2Wav,
    ConvNextBlock,
    DecoderBlock,
    DepthwiseCausalConv,
    ResidualUnit,
    SnakeBeta,
    UpsampleStage,
)
from models.stepping.operations import Operations
from models.stepping.ring_decoder import RingDecoder


class VocoderSlots:
    """The pasts of `num_slots` streams.

    Attributes:
        tails: for each convolution with a past, [num_slots, channels, length].
        front: the transformer's layers and their rings, for all steps.
        num_frames: [num_slots] int64.
    """

    def __init__(self, vocoder: Code2Wav, num_slots: int) -> None:
        weight = vocoder.code_embedding.weight
        config = vocoder.config.transformer
        assert config.sliding_window is not None
        self.tails = [weight.new_zeros((num_slots, *tail)) for tail in vocoder.tail_shapes]
        self.front = RingDecoder(
            vocoder.pre_transformer, num_slots=num_slots, window=config.sliding_window
        )
        self.num_frames = torch.zeros(num_slots, dtype=torch.int64, device=weight.device)

    def clear(self, rows: Tensor) -> None:
        """Begin the streams of the slots [B] int64. What their rings hold is not seen before it is
        written.
        """
        for past in (self.num_frames, *self.tails):
            past.index_fill_(0, rows, 0)


class VocoderStep:
    """See the module's docstring; one object for each kind of step. The first clears the pasts."""

    def __init__(
        self, vocoder: Code2Wav, slots: VocoderSlots, operations: Operations, *, is_first: bool
    ) -> None:
        self._vocoder, self._slots = vocoder, slots
        self._operations, self._is_first = operations, is_first

    @property
    def num_samples(self) -> int:
        """Samples that one call makes of each stream."""
        vocoder = self._vocoder
        return vocoder.num_samples(1) if self._is_first else vocoder.samples_per_frame

    def __call__(self, codes: Tensor, rows: Tensor) -> Tensor:
        """[B, num_quantizers] int64 codes of the slots `rows` [B] int64 -> [B, samples] float32."""
        vocoder = self._vocoder
        if self._is_first:
            self._slots.clear(rows)
        hidden = vocoder.code_embedding(codes + vocoder.code_offset).mean(dim=1)  # [B, H]
        x = self._front(hidden, rows)[..., None]  # [B, H, 1]
        for stage in vocoder.upsample:
            assert isinstance(stage, UpsampleStage)
            transposed, block = stage
            x = self._next_block(block, self._transposed(transposed, x, rows), rows)
        first, *blocks, activation, last = vocoder.decoder
        x = self._plain(first, x, rows)
        for block in blocks:
            x = self._block(block, x, rows)
        pcm = self._snake(activation, last, x, rows, None)  # [B, 1, samples]
        self._slots.num_frames.index_add_(0, rows, torch.ones_like(rows))
        return pcm[:, 0].clamp(-1.0, 1.0)

    # ------------------------------------------------------------------ the transformer in front
    def _front(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """[B, H] -> [B, H] after the final norm."""
        slots, transformer = self._slots, self._vocoder.pre_transformer
        place = slots.num_frames.index_select(0, rows)  # [B]
        turns = place.to(torch.float64)[:, None] * transformer.rotary.inv_freq  # [B, D / 2]
        cos, sin = turns.cos(), turns.sin()
        rotary = (
            torch.cat((cos, cos), dim=-1).to(hidden.dtype),  # [B, D]
            torch.cat((-sin, sin), dim=-1).to(hidden.dtype),
        )
        made = slots.front(hidden, rotary, rows, place, self._operations)
        normed: Tensor = transformer.norm(made)
        return normed

    # ------------------------------------------------------------------ convolutions
    def _block(self, block: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
        assert isinstance(block, DecoderBlock)
        activation, upsample, *units = block.block
        active = activation(x.transpose(0, 1)).transpose(0, 1)  # by channel: [C, B, L]
        x = self._transposed(upsample, active, rows)
        for unit in units:
            assert isinstance(unit, ResidualUnit)
            inner = self._snake(unit.act1, unit.conv1, x, rows, None)
            x = self._snake(unit.act2, unit.conv2, inner, rows, x)
        return x

    def _snake(
        self, snake: nn.Module, conv: nn.Module, x: Tensor, rows: Tensor, residual: Tensor | None
    ) -> Tensor:
        """Activation, convolution, residual: [B, C, L] -> [B, out, L]."""
        assert isinstance(snake, SnakeBeta)
        assert isinstance(conv, CausalConv)
        coefficients = (snake.frequency[:, 0, 0], snake.amplitude[:, 0, 0])
        layer = conv.conv
        if conv.slot < 0:
            tail = x.new_empty(len(x), x.shape[1], 0)
        else:
            tail = self._slots.tails[conv.slot].index_select(0, rows)
        made = self._operations.convolve(
            x.contiguous(), coefficients, tail, layer.weight, layer.bias, conv.dilation, residual
        )
        if conv.slot >= 0:
            self._slots.tails[conv.slot].index_copy_(0, rows, tail)
        return made

    def _plain(self, conv: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
        assert isinstance(conv, CausalConv)
        joined = self._joined(conv.slot, x, rows)
        return F.conv1d(joined, conv.conv.weight, conv.conv.bias, dilation=conv.dilation)

    def _next_block(self, block: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
        assert isinstance(block, ConvNextBlock)
        assert isinstance(block.dwconv, DepthwiseCausalConv)
        mixed = block.dwconv.conv(self._joined(block.dwconv.slot, x, rows))
        mixed = block.norm(mixed.transpose(1, 2))  # [B, L, C]
        mixed = block.pwconv2(F.gelu(block.pwconv1(mixed)))
        return torch.addcmul(x, block.gamma[:, None], mixed.transpose(1, 2))

    def _transposed(self, conv: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
        """[B, C, L] -> [B, out, L * stride], or a block less at the start of a stream."""
        assert isinstance(conv, CausalTransposedConv)
        kernel = conv.conv.kernel_size[0]
        if conv.slot >= 0:
            joined = self._joined(conv.slot, x, rows)
            x = x if self._is_first else joined
        return F.conv_transpose1d(
            x,
            conv.conv.weight,
            conv.conv.bias,
            stride=conv.stride,
            padding=kernel - conv.stride,
        )

    def _joined(self, slot: int, x: Tensor, rows: Tensor) -> Tensor:
        """`x` behind its past, [B, C, tail + L]; the past goes on."""
        pool = self._slots.tails[slot]
        joined = torch.cat([pool.index_select(0, rows), x], dim=-1)
        pool.index_copy_(0, rows, joined[..., joined.shape[-1] - pool.shape[-1] :])
        return joined
