"""Vision encoder: patches of grids -> tokens in the thinker's width, and deepstack features.

A grid (a still, or two camera frames) attends only inside itself, so it is final once encoded, and
grids of equal size go through together as a batch: grid by grid equals the whole video. Patches lie
merge block by merge block, which makes merging four patches into a token a plain view.

Does not resize or cut pictures (see `images`). Names follow `thinker.visual.*` of the published
checkpoints; source of the mathematics: `Qwen3OmniMoeVisionEncoder` of Hugging Face `transformers`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import VisionEncoderConfig

LAYER_NORM_EPS = 1e-6
ROPE_THETA = 10_000.0  # not in the published configs: a constant of the architecture
MAX_GRID_TABLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GridTables:
    """What depends on a grid's size only.

    Attributes:
        taps: [4, n] int64, the rows of the position table that each patch mixes.
        weights: [4, n, 1] float32, their shares.
        cos: [n, head_dim] float32, for the rotary positions.
        sin: the same; its first half negated.
    """

    taps: Tensor
    weights: Tensor
    cos: Tensor
    sin: Tensor


class PatchEmbed(nn.Module):
    """A patch's pixels -> hidden. The stored 3-D convolution covers one patch: a linear layer."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        shape = (config.hidden_size, config.in_channels, *kernel)
        self.upstream_shapes: Mapping[str, tuple[int, ...]] = {"proj.weight": shape}
        self.proj = nn.Linear(math.prod(shape[1:]), config.hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        """[..., channels * frames * patch * patch] -> [..., hidden]."""
        out: Tensor = self.proj(patches)
        return out


class VisionAttention(nn.Module):
    """Bidirectional attention inside each grid, with rotary positions of row and column."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor, tables: GridTables) -> Tensor:
        """hidden_states: [B, n, hidden], one row for each grid."""
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))  # [B, n, 3, H, D]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, n, D] each
        mixed = F.scaled_dot_product_attention(rotate(query, tables), rotate(key, tables), value)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # [B, n, hidden]
        return out


class VisionMlp(nn.Module):
    """GELU (tanh form) feed-forward."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., hidden] -> the same shape."""
        inner = F.gelu(self.linear_fc1(hidden_states), approximate="tanh")
        out: Tensor = self.linear_fc2(inner)
        return out


class VisionBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.attn = VisionAttention(config)
        self.mlp = VisionMlp(config)

    def forward(self, hidden_states: Tensor, tables: GridTables) -> Tensor:
        """[B, n, hidden] -> the same shape."""
        hidden_states = hidden_states + self.attn(self.norm1(hidden_states), tables)
        out: Tensor = hidden_states + self.mlp(self.norm2(hidden_states))
        return out


class PatchMerger(nn.Module):
    """Four patches of a merge block -> one token; deepstack norms after merging, not before."""

    def __init__(self, config: VisionEncoderConfig, *, norms_merged: bool) -> None:
        super().__init__()
        self.merged_size = config.hidden_size * config.spatial_merge_size**2
        self.norms_merged = norms_merged
        norm_size = self.merged_size if norms_merged else config.hidden_size
        self.ln_q = nn.LayerNorm(norm_size, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(self.merged_size, self.merged_size),
            nn.GELU(),
            nn.Linear(self.merged_size, config.output_size),
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, n, hidden] -> [B * n / 4, output_size]."""
        if self.norms_merged:
            hidden_states = hidden_states.reshape(-1, self.merged_size)
        out: Tensor = self.mlp(self.ln_q(hidden_states).reshape(-1, self.merged_size))
        return out


class VisionEncoder(nn.Module):
    """See the module's docstring."""

    inv_freq: Tensor

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.table_side = math.isqrt(config.num_position_embeddings)
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Embedding(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = PatchMerger(config, norms_merged=False)
        self.merger_list = nn.ModuleList(
            PatchMerger(config, norms_merged=True) for _ in config.deepstack_indexes
        )
        frequencies = torch.empty(config.hidden_size // config.num_heads // 4)
        self.register_buffer("inv_freq", frequencies, persistent=False)
        # A camera keeps its size: its tables are made once. Bounded, because stills have any size.
        self._tables: OrderedDict[tuple[int, int], GridTables] = OrderedDict()

    def build_constants(self, device: torch.device) -> None:
        """Inverse rotary frequencies, float32: half of a head turns by row, half by column."""
        spatial = self.config.hidden_size // self.config.num_heads // 2
        exponents = torch.arange(0, spatial, 2, device="cpu").float() / spatial
        self.inv_freq = (1.0 / ROPE_THETA**exponents).to(device)
        self._tables.clear()

    def num_tokens(self, grid_hw: tuple[int, int]) -> int:
        """Tokens of one grid of `grid_hw` patches."""
        return grid_hw[0] * grid_hw[1] // self.config.spatial_merge_size**2

    def forward(
        self, patches: Tensor, grid_hw: tuple[int, int], num_grids: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Encode grids of one size.

        Args:
            patches: [num_grids * h * w, patch values] in the weights' dtype, grid after grid.
            grid_hw: (h, w) of each grid in patches.

        Returns: features [n, output_size] and deepstack [num_levels, n, output_size], n tokens grid
            after grid.
        """
        tables = self.grid_tables(grid_hw)
        hidden_states = self.patch_embed(
            patches.view(num_grids, -1, patches.shape[-1])
        )  # [B, n, H]
        positions = (self.pos_embed(tables.taps) * tables.weights).sum(0)  # [n, H]
        hidden_states = hidden_states + positions.to(hidden_states.dtype)
        levels: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            hidden_states = block(hidden_states, tables)
            if index in self.config.deepstack_indexes:
                levels.append(self.merger_list[len(levels)](hidden_states))
        features: Tensor = self.merger(hidden_states)
        deepstack = torch.stack(levels) if levels else features.new_empty(0, *features.shape)
        return features, deepstack

    def grid_tables(self, grid_hw: tuple[int, int]) -> GridTables:
        """Position tables of a grid size; the last few sizes are kept."""
        tables = self._tables.get(grid_hw)
        if tables is None:
            tables = self._make_tables(*grid_hw)
            if len(self._tables) == MAX_GRID_TABLES:
                self._tables.popitem(last=False)
            self._tables[grid_hw] = tables
        else:
            self._tables.move_to_end(grid_hw)
        return tables

    def _make_tables(self, height: int, width: int) -> GridTables:
        merge, device = self.config.spatial_merge_size, self.inv_freq.device
        rows = torch.arange(height, device=device).repeat_interleave(width)
        columns = torch.arange(width, device=device).repeat(height)
        rows, columns = _block_order(rows, width, merge), _block_order(columns, width, merge)
        row_taps, row_weights = _axis_taps(rows, height, self.table_side)
        column_taps, column_weights = _axis_taps(columns, width, self.table_side)
        taps = row_taps[:, None] * self.table_side + column_taps[None]  # [2, 2, n]
        weights = row_weights[:, None] * column_weights[None]
        angles = (
            torch.stack([rows, columns], dim=1).float()[..., None] * self.inv_freq
        )  # [n, 2, D / 4]
        angles = angles.flatten(1)  # [n, D / 2]
        cos, sin = angles.cos(), angles.sin()
        return GridTables(
            taps=taps.flatten(0, 1),
            weights=weights.flatten(0, 1)[..., None],
            cos=torch.cat([cos, cos], dim=1),
            sin=torch.cat([-sin, sin], dim=1),
        )


def rotate(heads: Tensor, tables: GridTables) -> Tensor:
    """Rotary positions on [B, H, n, D], in float32 whatever the dtype, as the reference does."""
    exact = heads.float()
    swapped = exact.roll(exact.shape[-1] // 2, dims=-1)
    return torch.addcmul(exact * tables.cos, swapped, tables.sin).to(heads.dtype)


def _block_order(values: Tensor, width: int, merge: int) -> Tensor:
    """Values of patches in raster order -> in the order of merge blocks."""
    blocks = values.view(-1, merge, width // merge, merge)
    return blocks.transpose(1, 2).flatten()


def _axis_taps(positions: Tensor, size: int, side: int) -> tuple[Tensor, Tensor]:
    """For positions on an axis of `size`: rows of a `side` long table, and their shares [2, n]."""
    source = positions.float() * (side - 1) / max(size - 1, 1)  # ends meet ends
    low = source.floor()
    share = source - low
    taps = torch.stack([low, low + 1]).long().clamp(max=side - 1)
    return taps, torch.stack([1.0 - share, share])
