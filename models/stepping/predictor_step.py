"""The code predictor for many sessions: fifteen residual codes of one frame of each.

The past of a frame is a scratch ring for each row, written anew by every frame. Positions 0 and 1
of a frame (the talker's hidden state and its code) go together, so that the weights are read
fifteen times a frame, not sixteen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.sampling import Draws
from models.qwen3_omni.code_predictor import CodePredictor
from models.stepping.decoder_step import angles, final_projection
from models.stepping.operations import Operations
from models.stepping.ring_decoder import RingDecoder


class PredictorStep:
    """Scratch rings and constants for `batch` rows."""

    def __init__(self, predictor: CodePredictor, *, batch: int, operations: Operations) -> None:
        model = predictor.model
        weight = model.norm.weight
        num_positions = predictor.num_residuals + 1
        self._predictor, self._operations = predictor, operations
        self._decoder = RingDecoder(model, num_slots=batch, window=num_positions)
        self._rows = torch.arange(batch, device=weight.device)
        zeros = torch.zeros_like(self._rows)
        self._positions = [zeros] + [zeros + place for place in range(2, num_positions)]
        places = [torch.cat((zeros, zeros + 1)), *self._positions[1:]]  # of each pass's inputs
        self._rotaries = [angles(model, place.float(), weight.dtype) for place in places]

    def __call__(
        self, hidden: Tensor, code0: Tensor, code0_embed: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """All codes [B, num_code_groups] int64, and the sum [B, H] of the residual embeddings.

        Args:
            hidden: [B, H], what `code0` was drawn from. code0: [B] int64.
            code0_embed: [B, H].
            draws: settings of the residual codes; counted on by fifteen.
        """
        model, operations = self._predictor.model, self._operations
        inputs = torch.cat((hidden, code0_embed))  # [2 B, H], then [B, H]
        codes, embeds = [code0], list[Tensor]()
        passes = zip(
            *(self._positions, self._rotaries),
            *(self._predictor.lm_head, model.codec_embedding),
            strict=True,
        )
        for index, (positions, rotary, head, embedding) in enumerate(passes):
            states = self._decoder(inputs, rotary, self._rows, positions, operations)
            logits = final_projection(
                model, states[-len(code0) :], head.get_parameter("weight"), operations
            )
            codes.append(operations.sample(logits, draws, None, index))
            inputs = embedding(codes[-1])
            embeds.append(inputs)
        draws.advance(len(embeds))
        return torch.stack(codes, dim=1), torch.stack(embeds).sum(dim=0)
