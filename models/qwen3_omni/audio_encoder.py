"""Audio encoder: log-mel features -> 13 tokens a second in the thinker's width.

Features are cut into chunks of one second. Each chunk goes alone through three strided convolutions
and gets positions that start anew; the transformer then sees windows of several chunks, each
bidirectional inside and blind to all others. So a window's tokens are final when its last chunk is
there, and encoding window by window equals encoding the whole clip. Everything behind the last
whole window is provisional: encode it again when it has grown.

Does not compute features and does not decide when a window is closed. Names follow
`thinker.audio_tower.*` of the published checkpoints; source of the mathematics:
`Qwen3OmniMoeAudioEncoder` of Hugging Face `transformers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import AudioEncoderConfig
from models.errors import RequestError

MAX_TIMESCALE = 10_000.0
# Chunks that go through the convolutions together. Bounds memory: one chunk's first map is 1.5 M
# values at full size.
CHUNKS_PER_STEP = 32


class AudioAttention(nn.Module):
    """Bidirectional attention inside windows of equal length, and a last, shorter one."""

    packed_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "qkv_proj": ("q_proj", "k_proj", "v_proj")
    }

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.head_dim = size // config.num_heads
        self.packed_sizes: Mapping[str, tuple[int, ...]] = {"qkv_proj": (size, size, size)}
        self.qkv_proj = nn.Linear(size, 3 * size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, hidden_states: Tensor, window_tokens: int) -> Tensor:
        """hidden_states: [n, hidden]; windows of `window_tokens` are counted from its first row."""
        num_whole = len(hidden_states) // window_tokens * window_tokens
        qkv = self.qkv_proj(hidden_states).view(-1, 3, self.num_heads, self.head_dim)
        parts = []
        if num_whole:
            parts.append(self._attend(qkv[:num_whole], window_tokens))
        if num_whole < len(hidden_states):
            parts.append(self._attend(qkv[num_whole:], len(hidden_states) - num_whole))
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts)  # [n, hidden]
        out: Tensor = self.out_proj(mixed)
        return out

    def _attend(self, qkv: Tensor, length: int) -> Tensor:
        windows = qkv.view(-1, length, 3, self.num_heads, self.head_dim)  # [B, W, 3, H, D]
        query, key, value = windows.permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, W, D] each
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).reshape(len(qkv), -1)  # [B * W, H * D]


class AudioEncoderLayer(nn.Module):
    """Pre-norm block: attention, then a GELU feed-forward."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.self_attn = AudioAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(self, hidden_states: Tensor, window_tokens: int) -> Tensor:
        """hidden_states: [n, hidden] -> the same shape."""
        normed = self.self_attn_layer_norm(hidden_states)
        hidden_states = hidden_states + self.self_attn(normed, window_tokens)
        normed = self.final_layer_norm(hidden_states)
        out: Tensor = hidden_states + self.fc2(F.gelu(self.fc1(normed)))
        return out


class AudioEncoder(nn.Module):
    """See the module's docstring."""

    positional_embedding: Tensor

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.chunk_frames = 2 * config.n_window
        self.chunk_tokens = _num_conv_steps(self.chunk_frames)
        channels = config.downsample_hidden_size
        self.conv2d1 = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        rows = _num_conv_steps(config.num_mel_bins)
        self.conv_out = nn.Linear(channels * rows, config.hidden_size, bias=False)
        self.layers = nn.ModuleList(AudioEncoderLayer(config) for _ in range(config.num_layers))
        self.ln_post = nn.LayerNorm(config.hidden_size)
        self.proj1 = nn.Linear(config.hidden_size, config.hidden_size)
        self.proj2 = nn.Linear(config.hidden_size, config.output_size)
        positions = torch.empty(self.chunk_tokens, config.hidden_size)
        self.register_buffer("positional_embedding", positions, persistent=False)

    def build_constants(self, device: torch.device) -> None:
        """Sinusoids of the positions inside one chunk, in the weights' dtype."""
        table = sinusoids(self.chunk_tokens, self.config.hidden_size)
        self.positional_embedding = table.to(device=device, dtype=self.conv_out.weight.dtype)

    def num_tokens(self, num_frames: int) -> int:
        """Tokens of a clip of `num_frames` mel frames."""
        num_chunks, rest = divmod(num_frames, self.chunk_frames)
        return num_chunks * self.chunk_tokens + _num_conv_steps(rest)

    def num_final_frames(self, num_frames: int, *, window_frames: int | None = None) -> int:
        """Mel frames of a growing clip whose tokens can not change any more: its whole windows."""
        window = self.window_chunks(window_frames) * self.chunk_frames
        return num_frames // window * window

    def window_chunks(self, window_frames: int | None) -> int:
        """Chunks in an attention window. None: as the checkpoint has it.

        Raises:
            RequestError: the window is not whole chunks.
        """
        frames = self.config.n_window_infer if window_frames is None else window_frames
        if window_frames is not None and (frames <= 0 or frames % self.chunk_frames):
            raise RequestError(
                f"an audio window of {frames} frames is not a multiple of {self.chunk_frames}"
            )
        return max(1, frames // self.chunk_frames)

    def forward(
        self,
        mel: Tensor,
        *,
        clip_frames: int | None = None,
        window_frames: int | None = None,
    ) -> Tensor:
        """Encode a whole clip, or any run of it that starts at a window's first frame.

        Args:
            mel: [num_mel_bins, n] normalised log-mel in the weights' dtype.
            clip_frames: length of the whole clip that `mel` is cut from; None: `mel` is the whole
                clip. Matters to a partial last chunk only: the reference pads it to a whole one
                when the clip has a whole chunk.
            window_frames: mel frames in an attention window; None: as the checkpoint has it.

        Returns:
            [num_tokens(n), output_size].

        Raises:
            RequestError: no frames, or a window that is not whole chunks.
        """
        num_frames = mel.shape[1]
        if not num_frames:
            raise RequestError("no audio to encode")
        window_tokens = self.window_chunks(window_frames) * self.chunk_tokens
        is_padded = max(num_frames, clip_frames or 0) >= self.chunk_frames
        hidden_states = self._downsample(mel, is_padded=is_padded)
        for layer in self.layers:
            hidden_states = layer(hidden_states, window_tokens)
        out: Tensor = self.proj2(F.gelu(self.proj1(self.ln_post(hidden_states))))
        return out

    def _downsample(self, mel: Tensor, *, is_padded: bool) -> Tensor:
        """Mel frames -> tokens before the transformer [num_tokens(n), hidden]."""
        num_frames = mel.shape[1]
        length = self.chunk_frames if is_padded else num_frames
        num_chunks = -(-num_frames // length)
        padded = F.pad(mel, (0, num_chunks * length - num_frames))
        chunks = padded.reshape(len(mel), num_chunks, length).transpose(0, 1)  # [C, bins, length]
        steps = [self.convolve(step) for step in torch.split(chunks, CHUNKS_PER_STEP)]
        tokens = (steps[0] if len(steps) == 1 else torch.cat(steps)).flatten(
            0, 1
        )  # [C * T, hidden]
        return tokens[: self.num_tokens(num_frames)]

    def convolve(self, chunks: Tensor) -> Tensor:
        """Chunks [C, bins, length] -> their tokens [C, T, hidden], positions added."""
        maps = F.gelu(self.conv2d1(chunks.unsqueeze(1)))  # [C, channels, bins / 2, length / 2]
        maps = F.gelu(self.conv2d2(maps))
        maps = F.gelu(self.conv2d3(maps))
        flat = maps.permute(0, 3, 1, 2).flatten(2)  # [C, T, channels * bins / 8]
        tokens: Tensor = self.conv_out(flat)  # [C, T, hidden]
        return tokens + self.positional_embedding[: tokens.shape[1]]


def _num_conv_steps(length: int) -> int:
    """Length after three convolutions of kernel 3, stride 2, padding 1. No input gives none."""
    for _ in range(3):
        length = (length + 1) // 2
    return length


def sinusoids(length: int, channels: int) -> Tensor:
    """Sines, then cosines, of positions 0 .. length - 1: [length, channels] float32 on the CPU."""
    step = math.log(MAX_TIMESCALE) / (channels // 2 - 1)
    rates = torch.exp(-step * torch.arange(channels // 2, device="cpu").float())
    angles = torch.arange(length, device="cpu").float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
