"""Code2Wav: codec frames of 16 codes (12.5 a second) -> 24 kHz PCM, streaming and exact.

A table of codes, a causal transformer with a sliding window, two upsampling stages, and four blocks
of transposed and dilated causal convolutions. All of it is causal but for the transposed
convolutions, which need one input ahead: n frames give 1920 n - 555 samples, and each later frame
1920 more. `VocoderState` holds what a stream needs of its past (keys and values, the last inputs of
each convolution), so frames are never computed twice and steps of any size give the samples of one
pass over the whole reply.

Any number of frames of one stream, or the next frame of each of several: activations are
[channels, B, length]. Runs in float32 (the periodic activations turn to noise in bfloat16). Does
not pace, mix or quantise. Names follow `code2wav.*` of the published checkpoints; source of the
mathematics: `Qwen3OmniMoeCode2Wav` of Hugging Face `transformers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cache import WindowKvCache
from models.config import VocoderConfig
from models.decoder import Decoder, Rotary
from models.qwen3_omni.convolution import conv1d, conv_transpose1d

KERNEL_SIZE = 7
DILATIONS = (1, 3, 9)
LAYER_NORM_EPS = 1e-6


@dataclass(slots=True, kw_only=True)
class VocoderState:
    """The past of one stream, written in place by `Code2Wav`.

    Attributes:
        cache: keys and values of the transformer's last positions.
        tails: for each convolution with a past, its last inputs [channels, length].
        num_frames: frames taken so far.
    """

    cache: WindowKvCache
    tails: list[Tensor]
    num_frames: int = 0

    def copy(self) -> VocoderState:
        """An independent state at the same place of the stream."""
        tails = [tail.clone() for tail in self.tails]
        return VocoderState(cache=self.cache.clone(), tails=tails, num_frames=self.num_frames)


States = Sequence[VocoderState]


class SnakeBeta(nn.Module):
    """x + sin(a x)^2 / b for each channel; the checkpoint holds the logarithms of a and b."""

    frequency: Tensor
    amplitude: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))
        self.register_buffer("frequency", torch.empty(channels, 1, 1), persistent=False)
        self.register_buffer("amplitude", torch.empty(channels, 1, 1), persistent=False)

    def build_constants(self, device: torch.device) -> None:
        """Take the exponentials once instead of in every step."""
        self.frequency = self.alpha.detach().exp()[:, None, None].to(device)
        self.amplitude = (1.0 / (self.beta.detach().exp() + 1e-9))[:, None, None].to(device)

    def forward(self, x: Tensor) -> Tensor:
        """[C, B, L] -> [C, B, L]."""
        wave = (x * self.frequency).sin_().square_()
        return torch.addcmul(x, self.amplitude, wave)


class CausalConv(nn.Module):
    """Convolution whose left neighbours come from the stream's state (zeros at its start)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, dilation=dilation)
        self.dilation = dilation
        self.tail_shape = (in_channels, (kernel - 1) * dilation)
        self.slot = -1

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [out, B, L]."""
        if self.slot >= 0:
            x = _with_tail(x, states, self.slot)
        assert self.conv.bias is not None
        return conv1d(x, self.conv.weight, self.conv.bias, dilation=self.dilation)


class DepthwiseCausalConv(nn.Module):
    """The same with a filter of its own for each channel."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.tail_shape = (channels, kernel - 1)
        self.slot = -1

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [B, C, L]."""
        out: Tensor = self.conv(_with_tail(x, states, self.slot).transpose(0, 1))
        return out


class CausalTransposedConv(nn.Module):
    """Upsampling by `stride`; with a kernel of two strides an output block needs two inputs.

    So the first input of a stream makes nothing yet: L inputs give L - 1 blocks at the start.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(in_channels, out_channels, kernel, stride=stride)
        self.stride = stride
        self.tail_shape = (in_channels, kernel // stride - 1)
        self.slot = -1

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [out, B, L * stride], or [out, B, (L - 1) * stride] at the start of the
        streams, which must all be there or none.
        """
        if self.slot >= 0:
            joined = _with_tail(x, states, self.slot)
            x = joined if states[0].num_frames else x
        assert self.conv.bias is not None
        return conv_transpose1d(x, self.conv.weight, self.conv.bias, stride=self.stride)


class ConvNextBlock(nn.Module):
    """Depthwise causal convolution and a feed-forward in the channels, around a residual."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dwconv = DepthwiseCausalConv(size, KERNEL_SIZE)
        self.norm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(size, 4 * size)
        self.pwconv2 = nn.Linear(4 * size, size)
        self.gamma = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [C, B, L]."""
        mixed = self.norm(self.dwconv(x, states).transpose(1, 2))  # [B, L, C]
        mixed = self.pwconv2(F.gelu(self.pwconv1(mixed)))
        out: Tensor = torch.addcmul(x, self.gamma[:, None, None], mixed.permute(2, 0, 1))
        return out


class UpsampleStage(nn.ModuleList):
    """More positions of the same width: a transposed convolution without overlap, then a block."""

    def __init__(self, size: int, ratio: int) -> None:
        super().__init__([CausalTransposedConv(size, size, ratio, ratio), ConvNextBlock(size)])

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [C, B, L * ratio]."""
        transposed, block = self
        out: Tensor = block(transposed(x, states), states)
        return out


class ResidualUnit(nn.Module):
    """Dilated causal convolution between periodic activations, around a residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, KERNEL_SIZE, dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [C, B, L]."""
        inner = self.conv1(self.act1(x), states)
        out: Tensor = self.conv2(self.act2(inner), states)
        return out.add_(x)


class DecoderBlock(nn.Module):
    """Upsample by `rate` and halve the channels, then three residual units."""

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        half = channels // 2
        units = [ResidualUnit(half, dilation) for dilation in DILATIONS]
        upsample = CausalTransposedConv(channels, half, 2 * rate, rate)
        self.block = nn.ModuleList([SnakeBeta(channels), upsample, *units])

    def forward(self, x: Tensor, states: States) -> Tensor:
        """[C, B, L] -> [C / 2, B, L * rate] (less one input's worth at the start of the stream)."""
        activation, upsample, *units = self.block
        x = upsample(activation(x), states)
        for unit in units:
            x = unit(x, states)
        return x


class Code2Wav(nn.Module):
    """See the module's docstring."""

    code_offset: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.transformer.hidden_size
        self.code_embedding = nn.Embedding(config.codebook_size * config.num_quantizers, size)
        self.pre_transformer = Decoder(config.transformer)
        self.upsample = nn.ModuleList(
            UpsampleStage(size, ratio) for ratio in config.upsampling_ratios
        )
        channels = [config.decoder_size // 2**i for i in range(len(config.upsample_rates) + 1)]
        blocks = map(DecoderBlock, channels, config.upsample_rates)
        self.decoder = nn.ModuleList(
            [
                CausalConv(size, channels[0], KERNEL_SIZE),
                *blocks,
                SnakeBeta(channels[-1]),
                CausalConv(channels[-1], 1, KERNEL_SIZE),
            ]
        )
        self.tail_shapes = _number_tails(self)
        offsets = torch.empty(config.num_quantizers, dtype=torch.int64)
        self.register_buffer("code_offset", offsets, persistent=False)

    def build_constants(self, device: torch.device) -> None:
        """First row of each quantizer in the code table."""
        quantizers = torch.arange(self.config.num_quantizers, device="cpu")
        self.code_offset = (quantizers * self.config.codebook_size).to(device)

    @property
    def device(self) -> torch.device:
        """Where this stage lies."""
        return self.code_offset.device

    @property
    def samples_per_frame(self) -> int:
        """Samples of each frame but the first."""
        return math.prod(self.config.upsampling_ratios) * math.prod(self.config.upsample_rates)

    def num_samples(self, num_frames: int) -> int:
        """Samples of the first `num_frames` frames of a stream."""
        length = num_frames * math.prod(self.config.upsampling_ratios)
        for rate in self.config.upsample_rates:
            length = max(0, length - 1) * rate
        return length

    def new_state(self) -> VocoderState:
        """The state of a stream that has not begun, beside the weights."""
        weight = self.code_embedding.weight
        cache = WindowKvCache(self.config.transformer, device=weight.device, dtype=weight.dtype)
        tails = [weight.new_zeros(shape) for shape in self.tail_shapes]
        return VocoderState(cache=cache, tails=tails)

    def forward(self, codes: Tensor, state: VocoderState) -> Tensor:
        """Continue a stream.

        Args:
            codes: [n, num_quantizers] int64, n >= 1, each below `codebook_size` (not checked: no
            sync here).
            state: the stream's past; brought forward by n frames. Void if this raises.

        Returns:
            [num_samples(m + n) - num_samples(m)] float32 in -1..1, m frames having gone before.
        """
        hidden_states = self._embedded(codes)  # [n, H]
        start = state.num_frames
        rotary = self._rotary(range(start, start + len(codes)), hidden_states)
        output = self.pre_transformer.run(hidden_states, rotary, state.cache)
        pcm = self._samples(output.hidden_states.t()[:, None], (state,))
        state.num_frames += len(codes)
        return pcm[0]

    def next_frames(self, codes: Tensor, states: States) -> Tensor:
        """Continue each of several streams, which have begun, by one frame.

        Args:
            codes: [B, num_quantizers] int64. states: the past of each; void if this raises.

        Returns:
            [B, samples_per_frame] float32 in -1..1.
        """
        assert all(state.num_frames for state in states), "first frames have another length"
        hidden_states = self._embedded(codes)  # [B, H]
        rotary = self._rotary([state.num_frames for state in states], hidden_states)
        caches = [state.cache for state in states]
        output = self.pre_transformer.run_rows(hidden_states, rotary, caches)
        pcm = self._samples(output.hidden_states.t()[..., None], states)
        for state in states:
            state.num_frames += 1
        return pcm

    def _embedded(self, codes: Tensor) -> Tensor:
        """[n, num_quantizers] -> [n, H]."""
        embeds: Tensor = self.code_embedding(codes + self.code_offset)
        return embeds.mean(dim=1)

    def _samples(self, x: Tensor, states: States) -> Tensor:
        """[H, B, n] behind the transformer -> [B, samples]."""
        for stage in self.upsample:
            x = stage(x, states)  # [H, B, 2 n], then [H, B, 4 n]
        first, *blocks, activation, last = self.decoder
        x = first(x, states)
        for block in blocks:
            x = block(x, states)
        pcm: Tensor = last(activation(x), states)  # [1, B, samples]
        return pcm[0].clamp_(-1.0, 1.0)

    def _rotary(self, places: Sequence[int], hidden_states: Tensor) -> Rotary:
        """Angles of these frames. Only differences of positions matter; float32 would round them in
        a long reply, so they are taken in float64.
        """
        positions = torch.tensor(places, device=hidden_states.device, dtype=torch.float64)
        angles = positions[:, None] * self.pre_transformer.rotary.inv_freq  # [n, D / 2]
        cos, sin = angles.cos(), angles.sin()
        return Rotary(
            torch.cat([cos, cos], dim=-1).to(hidden_states.dtype)[:, None],
            torch.cat([-sin, sin], dim=-1).to(hidden_states.dtype)[:, None],
        )


_STREAMING = (CausalConv, DepthwiseCausalConv, CausalTransposedConv)


def _number_tails(vocoder: Code2Wav) -> list[tuple[int, int]]:
    """Give each convolution with a past its place in `VocoderState.tails`; returns the shapes."""
    shapes: list[tuple[int, int]] = []
    for module in vocoder.modules():
        if isinstance(module, _STREAMING) and module.tail_shape[1]:
            module.slot = len(shapes)
            shapes.append(module.tail_shape)
    return shapes


def _with_tail(x: Tensor, states: States, slot: int) -> Tensor:
    """[C, B, tail + L]: `x` behind its pasts, which then hold the last inputs of both."""
    if len(states) == 1:
        past = states[0].tails[slot].unsqueeze(1)
        joined = torch.cat((past, x), dim=2)
        past.copy_(joined.narrow(2, x.shape[2], past.shape[2]))
        return joined
    tails = [state.tails[slot] for state in states]
    joined = torch.cat([torch.stack(tails, dim=1), x], dim=2)
    kept = joined[..., joined.shape[2] - tails[0].shape[1] :]
    for tail, new in zip(tails, kept.unbind(1), strict=True):
        tail.copy_(new)
    return joined
