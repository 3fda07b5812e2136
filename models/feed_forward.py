"""Feed-forward halves of a decoder layer: dense SwiGLU, and the sparse mixture of experts.

Routing follows Hugging Face `qwen3_omni_moe`: softmax in float32 over all experts, the best k, made
to sum to one. Every token's result is the sum over its own experts in order of their weight,
whatever else is in the call, so that it is the same alone and in company up to the rounding of the
matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import MoeConfig

# On a GPU, up to so many token-expert pairs, copying weights should beat waiting for the ids: an
# estimate from byte counts (three passes over the chosen weights against a sync per layer).
MAX_GATHERED_PAIRS = 64


class Mlp(nn.Module):
    """SwiGLU feed-forward with packed gate and up projections."""

    packed_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "gate_up_proj": ("gate_proj", "up_proj")
    }

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.packed_sizes: Mapping[str, tuple[int, ...]] = {
            "gate_up_proj": (intermediate_size, intermediate_size)
        }
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        projected: Tensor = self.down_proj(F.silu(gate) * up)
        return projected


class ExpertMix(nn.Module):
    """SwiGLU experts, of which only those that a token chose are read; how they are kept is the
    subclass's.
    """

    expert_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "gate_up_proj": ("gate_proj", "up_proj"),
        "down_proj": ("down_proj",),
    }
    num_experts: int

    def forward(self, hidden_states: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Mix the chosen experts: [T, H], their ids [T, k] and weights [T, k] -> [T, H]."""
        if hidden_states.is_cuda and experts.numel() <= MAX_GATHERED_PAIRS:
            return self.gathered(hidden_states, experts, weights)
        if hidden_states.shape[0] == 1:
            return self.one_token(hidden_states, experts, weights)
        return self.grouped(hidden_states, experts, weights)

    def one_token(self, hidden_states: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """For T = 1: each chosen expert in turn, read where it lies."""
        made = [self._expert(expert, hidden_states) for expert in experts[0].tolist()]
        return weights @ torch.cat(made)  # [1, k] @ [k, H]

    def gathered(self, hidden_states: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """For few tokens on a GPU: copies the experts' weights, but never waits for their ids."""
        num_tokens, top_k = experts.shape
        states = hidden_states.repeat_interleave(top_k, dim=0)  # pair p belongs to token p // k
        made = self._pairs(experts.flatten(), states)  # [T * k, H]
        return _weighted(made.view(num_tokens, top_k, -1), weights)

    def grouped(self, hidden_states: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """For many tokens: sort the pairs by expert, run each expert once, put the results back."""
        num_tokens, top_k = experts.shape
        in_order, order = experts.flatten().sort(stable=True)
        every = torch.arange(self.num_experts, device=experts.device)
        ends = torch.searchsorted(in_order, every, right=True)
        made = self._groups(hidden_states.index_select(0, order // top_k), ends)  # [T * k, H]
        by_pair = torch.empty_like(made).index_copy_(0, order, made)
        return _weighted(by_pair.view(num_tokens, top_k, -1), weights)

    def _groups(self, states: Tensor, ends: Tensor) -> Tensor:
        """[P, H] -> [P, H], the rows up to `ends[0]` by the first expert, and so on."""
        made = torch.empty_like(states)
        start = 0
        for expert, end in enumerate(ends.tolist()):
            if end > start:
                made[start:end] = self._expert(expert, states[start:end])
            start = end
        return made

    def _expert(self, expert: int, hidden_states: Tensor) -> Tensor:
        """[T, H] -> [T, H] by one expert."""
        raise NotImplementedError

    def _pairs(self, chosen: Tensor, states: Tensor) -> Tensor:
        """[P, H] -> [P, H], row p by expert `chosen[p]`."""
        raise NotImplementedError


class Experts(ExpertMix):
    """Experts whose matrices are stacked."""

    def __init__(self, hidden_size: int, config: MoeConfig) -> None:
        super().__init__()
        num, inner = config.num_experts, config.expert_size
        self.num_experts = num
        self.gate_up_proj = nn.Parameter(torch.empty(num, 2 * inner, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num, hidden_size, inner))

    def _groups(self, states: Tensor, ends: Tensor) -> Tensor:
        if states.is_cuda and states.dtype == torch.bfloat16:  # all that its kernels know
            return self.groups_at_once(states, ends)
        return super()._groups(states, ends)

    def groups_at_once(self, states: Tensor, ends: Tensor) -> Tensor:
        """The same in two products, whose kernels find the groups themselves: a loop over 128
        experts in each of 48 layers would keep a GPU waiting for its launches.
        """
        offsets = ends.to(torch.int32)
        hidden = F.grouped_mm(states, self.gate_up_proj.transpose(1, 2), offs=offsets)
        gate, up = hidden.chunk(2, dim=-1)
        return F.grouped_mm(F.silu(gate) * up, self.down_proj.transpose(1, 2), offs=offsets)

    def _expert(self, expert: int, hidden_states: Tensor) -> Tensor:
        gate, up = F.linear(hidden_states, self.gate_up_proj[expert]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down_proj[expert])

    def _pairs(self, chosen: Tensor, states: Tensor) -> Tensor:
        gate, up = torch.bmm(self.gate_up_proj[chosen], states.unsqueeze(-1)).chunk(2, dim=1)
        return torch.bmm(self.down_proj[chosen], F.silu(gate) * up).squeeze(-1)


def _weighted(by_token: Tensor, weights: Tensor) -> Tensor:
    """Sum [T, k, H] over the experts with weights [T, k]: [T, H]."""
    return torch.bmm(weights.unsqueeze(1), by_token).squeeze(1)


class SparseMlp(nn.Module):
    """Router, experts, and the shared expert behind a sigmoid gate where the config has one."""

    def __init__(self, hidden_size: int, config: MoeConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_token
        self.normalize_top_k = config.normalize_top_k
        self.gate = nn.Linear(hidden_size, config.num_experts, bias=False)
        self.experts: ExpertMix = Experts(hidden_size, config)
        self.has_shared_expert = config.shared_expert_size is not None
        if config.shared_expert_size is not None:
            self.shared_expert = Mlp(hidden_size, config.shared_expert_size)
            self.shared_expert_gate = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        experts, weights = self.route(hidden_states)
        mixed: Tensor = self.experts(hidden_states, experts, weights)
        if self.has_shared_expert:
            shared_gate = torch.sigmoid(self.shared_expert_gate(hidden_states))  # [T, 1]
            mixed = torch.addcmul(mixed, shared_gate, self.shared_expert(hidden_states))
        return mixed

    def route(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Each token's experts, best first, and their weights: [T, k] int64 and [T, k]."""
        scores = self.gate(hidden_states).softmax(dim=-1, dtype=torch.float32)
        weights, experts = scores.topk(self.top_k, dim=-1)
        if self.normalize_top_k:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return experts, weights.to(hidden_states.dtype)
