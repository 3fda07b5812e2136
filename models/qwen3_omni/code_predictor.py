"""The code predictor: the fifteen residual codes of one codec frame, one after the other.

Each frame is a sequence of its own of sixteen positions: the talker's hidden state, then the
embedding of each code. This runs 15 times as often as the talker, so positions' angles and the
cache are made once, and nothing is read back from the device: the frame's ids stay a tensor until
the engine's one sync per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.cache import KvCache
from models.config import TalkerConfig
from models.decoder import Decoder, Rotary
from models.sampling import Sampler, SamplingSettings

# In no file of the checkpoint: constants of the reference's code.
RESIDUAL_SAMPLING = SamplingSettings(top_k=50, top_p=0.8)


@dataclass(frozen=True, slots=True)
class CodecFrame:
    """One codec frame on the device.

    Attributes:
        codes: [num_code_groups] int64, the talker's code first: one `tolist()` is the frame's sync.
        residual_embedding: [H], sum of the embeddings of all codes but the first.
    """

    codes: Tensor
    residual_embedding: Tensor


class PredictorDecoder(Decoder):
    """The decoder with one embedding table per residual code."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__(config.predictor)
        size, vocab = config.predictor.hidden_size, config.predictor.vocab_size
        self.codec_embedding = nn.ModuleList(
            nn.Embedding(vocab, size) for _ in range(config.num_code_groups - 1)
        )


class CodePredictor(nn.Module):
    """Predicts one frame at a time: the scratch cache of the frame at hand is its own."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        predictor = config.predictor
        self.num_residuals = config.num_code_groups - 1
        self.model = PredictorDecoder(config)
        self.lm_head = nn.ModuleList(
            nn.Linear(predictor.hidden_size, predictor.vocab_size, bias=False)
            for _ in range(self.num_residuals)
        )
        self._rotaries: list[Rotary] = []
        self._cache: KvCache | None = None

    def build_constants(self, device: torch.device) -> None:
        """Make the angles of each pass's positions, and the cache that every frame uses again."""
        dtype = self.model.norm.weight.dtype
        self.model.rotary.build_constants(device)
        positions = torch.arange(self.num_residuals + 1, dtype=torch.float32, device=device)
        passes = (positions[:2], *positions[2:, None])
        self._rotaries = [self.model.rotary(where, dtype) for where in passes]
        self._cache = KvCache(
            self.model.config, capacity=self.num_residuals + 1, device=device, dtype=dtype
        )

    def predict(
        self, talker_hidden: Tensor, code0: Tensor, code0_embed: Tensor, sampler: Sampler
    ) -> CodecFrame:
        """Complete one frame.

        Args:
            talker_hidden: [H], the talker's output that `code0` was drawn from.
            code0: [] or [1] int64 on the device.
            code0_embed: [H], its embedding in the talker's table.
            sampler: draws the residual codes.
        """
        cache = self._cache
        assert cache is not None, "build_constants was not called"
        cache.truncate(0)
        codes = [code0.view(1)]
        inputs = torch.stack((talker_hidden, code0_embed))  # [2, H]
        total: Tensor | None = None
        tables = zip(self._rotaries, self.lm_head, self.model.codec_embedding, strict=True)
        for rotary, head, embedding in tables:
            hidden = self.model.run(inputs, rotary, cache).hidden_states[-1]
            code = sampler(head(hidden).to(torch.float32)).view(1)
            inputs = embedding(code)  # [1, H]
            total = inputs if total is None else total + inputs
            codes.append(code)
        assert total is not None, "a frame has at least two codes"
        return CodecFrame(torch.cat(codes), total[0])
