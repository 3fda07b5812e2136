"""The code predictor: the fifteen residual codes of one codec frame, one after the other.

Each frame is a sequence of its own of sixteen positions: the talker's hidden state, then the
embedding of each code. This runs 15 times as often as the talker, so positions' angles and the
cache are made once, and nothing is read back from the device: the frame's ids stay a tensor until
the engine's one sync per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.attention import Frames
from models.config import TalkerConfig
from models.decode_step import project
from models.decoder import Decoder, Rotary
from models.sampling import Sampler, SamplingSettings, draw_rows

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
    """Predicts a frame of each of several voices: their scratch caches are its own."""

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
        self._scratch: dict[int, Frames] = {}

    def build_constants(self, device: torch.device) -> None:
        """Make the angles of each pass's positions; caches are made when first asked for."""
        self.model.rotary.build_constants(device)
        dtype = self.model.norm.weight.dtype
        positions = torch.arange(self.num_residuals + 1, dtype=torch.float32, device=device)
        passes = (positions[:2], *positions[2:, None])
        self._rotaries = [self.model.rotary(where, dtype) for where in passes]
        self._scratch = {}

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
        codes, residuals = self.predict_rows(
            talker_hidden[None], code0.view(1), code0_embed[None], (sampler,)
        )
        return CodecFrame(codes[0], residuals[0])

    def predict_rows(
        self,
        talker_hidden: Tensor,
        code0: Tensor,
        code0_embed: Tensor,
        samplers: Sequence[Sampler],
    ) -> tuple[Tensor, Tensor]:
        """Complete a frame of each of B voices, each with its own sampler.

        Args:
            talker_hidden: [B, H]. code0: [B] int64. code0_embed: [B, H].

        Returns:
            [B, num_code_groups] int64, and [B, H]: what `CodecFrame` holds, for each row.
        """
        num_rows, size = talker_hidden.shape
        kept = self._frames(num_rows)
        codes = [code0]
        inputs = torch.stack((talker_hidden, code0_embed), dim=1).view(-1, size)  # [2 B, H]
        total: Tensor | None = None
        tables = zip(self._rotaries, self.lm_head, self.model.codec_embedding, strict=True)
        for rotary, head, embedding in tables:
            hidden = self.model.run_with(inputs, rotary.repeat(len(inputs)), kept).hidden_states
            if total is None:
                hidden = hidden[1::2]  # what follows the code
                kept.advance(2)
            else:
                kept.advance(1)
            code = draw_rows(samplers, project(head, hidden).to(torch.float32))
            inputs = embedding(code)  # [B, H]
            total = inputs if total is None else total + inputs
            codes.append(code)
        assert total is not None, "a frame has at least two codes"
        return torch.stack(codes, dim=1), total

    def _frames(self, num_rows: int) -> Frames:
        """Empty caches for so many rows, used again by every call of their number."""
        found = self._scratch.get(num_rows)
        if found is None:
            assert self._rotaries, "build_constants was not called"
            weight = self.model.norm.weight
            with torch.inference_mode(False):  # whoever comes next may not be in that mode
                found = Frames(
                    self.model.config,
                    num_rows=num_rows,
                    num_positions=self.num_residuals + 1,
                    device=weight.device,
                    dtype=weight.dtype,
                )
            self._scratch[num_rows] = found
        found.restart()
        return found
