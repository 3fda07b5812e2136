"""The vocoder's unit: periodic activation and dilated causal convolution in one pass, with state.

The plain path writes the activated samples, joins them with the stream's past and convolves: three
round trips through memory. Here the activation is made while the samples are read. The past holds
activated samples; a second, small launch brings it forward, because the first still reads it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels.language import Pointer, cdiv, check_rows, jit, next_power_of_2, tl

BLOCK_OUT = 32
LEAST_OUT = 16  # the last convolution makes one channel: half a tile masks fewer
BLOCK_LENGTH = 64
BLOCK_IN = 16  # float32 is multiplied from registers, and twice as many spill


def reference(
    x: Tensor,
    snake: tuple[Tensor, Tensor],
    tail: Tensor,
    weight: Tensor,
    bias: Tensor,
    dilation: int,
    residual: Tensor | None,
) -> Tensor:
    """Plain PyTorch of `fused`."""
    frequency, amplitude = (part[:, None] for part in snake)
    active = torch.addcmul(x, amplitude, (x * frequency).sin().square())
    joined = torch.cat([tail, active], dim=-1)
    tail.copy_(joined[..., joined.shape[-1] - tail.shape[-1] :])
    made = F.conv1d(joined, weight, bias, dilation=dilation)
    return made if residual is None else made + residual


def fused(
    x: Tensor,
    snake: tuple[Tensor, Tensor],
    tail: Tensor,
    weight: Tensor,
    bias: Tensor,
    dilation: int,
    residual: Tensor | None,
) -> Tensor:
    """[B, C, L] -> [B, out, L]; `tail` is brought forward in place.

    Args:
        x: [B, C, L] float32.
        snake: frequency and amplitude, [C] each: x + amplitude * sin(frequency * x)^2.
        tail: [B, C, (kernel - 1) * dilation], activated samples of the past.
        weight: [out, C, kernel]. bias: [out].
        residual: [B, out, L], added to the result.
    """
    num_rows, channels, length = x.shape
    num_out, _, kernel = weight.shape
    num_past = (kernel - 1) * dilation
    check_rows("x", x, (num_rows, channels, length))
    check_rows("tail", tail, (num_rows, channels, num_past))
    check_rows("weight", weight, (num_out, channels, kernel))
    made = torch.empty(num_rows, num_out, length, dtype=x.dtype, device=x.device)
    block_out = max(LEAST_OUT, min(BLOCK_OUT, next_power_of_2(num_out)))
    _convolve[(cdiv(length, BLOCK_LENGTH), cdiv(num_out, block_out), num_rows)](
        x,
        snake[0],
        snake[1],
        tail,
        weight,
        bias,
        residual,
        made,
        channels,
        length,
        num_out,
        HAS_RESIDUAL=residual is not None,
        KERNEL=kernel,
        DILATION=dilation,
        OUT=block_out,
        LENGTH=BLOCK_LENGTH,
        IN=BLOCK_IN,
    )
    if num_past:
        _bring_forward[(channels, num_rows)](
            x,
            snake[0],
            snake[1],
            tail,
            channels,
            length,
            PAST=num_past,
            BLOCK=next_power_of_2(num_past),
        )
    return made


@jit
def _convolve(
    x_ptr: Pointer,
    frequency_ptr: Pointer,
    amplitude_ptr: Pointer,
    tail_ptr: Pointer,
    weight_ptr: Pointer,
    bias_ptr: Pointer,
    residual_ptr: Pointer,
    made_ptr: Pointer,
    channels: int,
    length: int,
    num_out: int,
    HAS_RESIDUAL: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    OUT: tl.constexpr,
    LENGTH: tl.constexpr,
    IN: tl.constexpr,
) -> None:
    """One tile [OUT, LENGTH]: a matrix product for each tap."""
    place = tl.program_id(0) * LENGTH + tl.arange(0, LENGTH)
    out = tl.program_id(1) * OUT + tl.arange(0, OUT)
    row = tl.program_id(2)
    past = (KERNEL - 1) * DILATION
    total = tl.zeros((OUT, LENGTH), dtype=tl.float32)
    for start in range(0, channels, IN):
        channel = start + tl.arange(0, IN)
        has_channel = channel < channels
        frequency = tl.load(frequency_ptr + channel, mask=has_channel, other=0.0)[:, None]
        amplitude = tl.load(amplitude_ptr + channel, mask=has_channel, other=0.0)[:, None]
        line = (row * channels + channel)[:, None]
        for tap in range(KERNEL):
            source = place + tap * DILATION - past  # before 0 lies the past
            is_new = has_channel[:, None] & (source >= 0)[None, :] & (source < length)[None, :]
            is_past = has_channel[:, None] & (source < 0)[None, :]
            x = tl.load(x_ptr + line * length + source[None, :], mask=is_new, other=0.0)
            wave = tl.sin(x * frequency)
            x = x + amplitude * wave * wave  # nothing stays nothing
            x += tl.load(tail_ptr + line * past + (source + past)[None, :], mask=is_past, other=0.0)
            w = tl.load(
                weight_ptr + (out[:, None] * channels + channel[None, :]) * KERNEL + tap,
                mask=(out < num_out)[:, None] & has_channel[None, :],
                other=0.0,
            )
            total += tl.dot(w, x, input_precision="ieee")
    total += tl.load(bias_ptr + out, mask=out < num_out, other=0.0)[:, None]
    where = (row * num_out + out[:, None]) * length + place[None, :]
    has = (out < num_out)[:, None] & (place < length)[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual_ptr + where, mask=has, other=0.0)
    tl.store(made_ptr + where, total, mask=has)


@jit
def _bring_forward(
    x_ptr: Pointer,
    frequency_ptr: Pointer,
    amplitude_ptr: Pointer,
    tail_ptr: Pointer,
    channels: int,
    length: int,
    PAST: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """The last PAST activated samples of one channel."""
    channel, row = tl.program_id(0), tl.program_id(1)
    place = tl.arange(0, BLOCK)
    has = place < PAST
    line = row * channels + channel
    source = length - PAST + place
    old = tl.load(tail_ptr + line * PAST + place + length, mask=has & (source < 0), other=0.0)
    x = tl.load(x_ptr + line * length + source, mask=has & (source >= 0), other=0.0)
    wave = tl.sin(x * tl.load(frequency_ptr + channel))
    x = x + tl.load(amplitude_ptr + channel) * wave * wave
    tl.debug_barrier()  # all of the past is read before any of it is written
    tl.store(tail_ptr + line * PAST + place, old + x, mask=has)
