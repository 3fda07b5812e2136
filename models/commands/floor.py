"""The floor of a speech frame: the bytes that each step must read, at the bandwidth of this memory.

Counts weights only. Of experts, those that a token chooses; of tables, nothing. A working set that
stays in a cache can be read faster than the bandwidth of a large copy says: then the floor is not
one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from models.feed_forward import SparseMlp
from models.qwen3_omni.model import Qwen3Omni

COPY_BYTES = 256 * 2**20
COPIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Bytes that one step of each part reads, and the bandwidth to read them at."""

    thinker_bytes: int
    talker_bytes: int
    predictor_bytes: int
    vocoder_bytes: int
    bytes_per_s: float

    @property
    def frame_ms(self) -> float:
        """Talker, predictor passes and vocoder of one frame."""
        total = self.talker_bytes + self.predictor_bytes + self.vocoder_bytes
        return 1000 * total / self.bytes_per_s

    @property
    def token_ms(self) -> float:
        """One text token."""
        return 1000 * self.thinker_bytes / self.bytes_per_s

    def record(self) -> dict[str, float]:
        """For the JSON."""
        return {
            "gb_per_s": round(self.bytes_per_s / 1e9, 2),
            "thinker_token_mb": round(self.thinker_bytes / 1e6, 2),
            "talker_step_mb": round(self.talker_bytes / 1e6, 2),
            "predictor_frame_mb": round(self.predictor_bytes / 1e6, 2),
            "vocoder_frame_mb": round(self.vocoder_bytes / 1e6, 2),
            "token_ms": round(self.token_ms, 3),
            "frame_ms": round(self.frame_ms, 3),
        }

    def describe(self) -> str:
        """Two lines for people."""
        return (
            f"floor at {self.bytes_per_s / 1e9:.1f} GB/s read: text token {self.token_ms:.2f} ms,"
            f" speech frame {self.frame_ms:.2f} ms\n"
            f"  (talker {self.talker_bytes / 1e6:.1f} MB, predictor"
            f" {self.predictor_bytes / 1e6:.1f} MB over its passes,"
            f" vocoder {self.vocoder_bytes / 1e6:.1f} MB)"
        )


def measure_floor(model: Qwen3Omni) -> Floor:
    """Count the weights and time large copies where they lie."""
    assert model.talker is not None
    assert model.code2wav is not None
    predictor = model.talker.code_predictor
    heads = _bytes_read(predictor.lm_head)
    passes = predictor.num_residuals
    return Floor(
        thinker_bytes=_bytes_read(model.thinker.model) + _bytes_read(model.thinker.lm_head),
        talker_bytes=_bytes_read(model.talker.model) + _bytes_read(model.talker.codec_head),
        predictor_bytes=passes * _bytes_read(predictor.model) + heads,
        vocoder_bytes=_bytes_read(model.code2wav),
        bytes_per_s=measure_bandwidth(model.thinker.lm_head.weight.device),
    )


def measure_bandwidth(device: torch.device) -> float:
    """Bytes read a second: a copy reads and writes as much, the best of some."""
    source = torch.empty(COPY_BYTES // 4, dtype=torch.float32, device=device).fill_(1.0)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(COPIES):
        _wait(device)
        started = time.perf_counter()
        target.copy_(source)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * COPY_BYTES / best


def _bytes_read(part: nn.Module) -> int:
    """Weights that one token reads; packed experts have their matrices in modules of their own."""
    total = 0.0
    share = {
        id(inner): moe.top_k / moe.experts.num_experts
        for moe in part.modules()
        if isinstance(moe, SparseMlp)
        for inner in moe.experts.modules()
    }
    for module in part.modules():
        if isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            total += parameter.nbytes * share.get(id(module), 1.0)
    return round(total)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
