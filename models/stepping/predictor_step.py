"""The code predictor for many sessions: fifteen residual codes of one frame of each.

The scratch cache of a frame is one page for each row, written anew by every frame. Positions 0 and
1 of a frame (the talker's hidden state and its code) are two rows of one step that share a page:
the weights are read fifteen times a frame, not sixteen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.sampling import Draws
from models.qwen3_omni.code_predictor import CodePredictor
from models.stepping.decoder_step import angles, final_projection, step_decoder
from models.stepping.operations import Operations
from models.stepping.pages import PagePool


class PredictorStep:
    """Scratch pages and constants for `batch` rows."""

    def __init__(self, predictor: CodePredictor, *, batch: int, operations: Operations) -> None:
        model = predictor.model
        weight = model.norm.weight
        device, dtype = weight.device, weight.dtype
        num_positions = predictor.num_residuals + 1
        self._predictor, self._operations = predictor, operations
        self._pool = PagePool(
            model.config,
            num_pages=batch,
            device=device,
            dtype=dtype,
            page_size=1 << (num_positions - 1).bit_length(),
        )
        table = torch.arange(batch, dtype=torch.int32, device=device)[:, None]
        zeros = torch.zeros(batch, dtype=torch.int32, device=device)
        self._tables = [table.repeat(2, 1)] + [table] * (num_positions - 2)
        self._lengths = [torch.cat((zeros, zeros + 1))]
        self._lengths += [zeros + place for place in range(2, num_positions)]
        self._rotaries = [angles(model, lengths.float(), dtype) for lengths in self._lengths]

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
        batch = len(code0)
        inputs = torch.cat((hidden, code0_embed))  # [2 B, H], then [B, H]
        codes, total = [code0], torch.zeros_like(hidden)
        tables = zip(
            *(self._tables, self._lengths, self._rotaries),
            *(self._predictor.lm_head, model.codec_embedding),
            strict=True,
        )
        for table, lengths, rotary, head, embedding in tables:
            states = step_decoder(model, inputs, rotary, self._pool, table, lengths, operations)
            logits = final_projection(
                model, states[-batch:], head.get_parameter("weight"), operations
            )
            code = operations.sample(logits, draws, None)
            draws.advance()
            inputs = embedding(code)
            total = total + inputs
            codes.append(code)
        return torch.stack(codes, dim=1), total
