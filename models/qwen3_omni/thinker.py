"""The thinker: encoders of sound and pictures, and the text decoder that understands and answers.

The engine encodes media by `audio_tower` and `visual`, puts their outputs among the embedded text,
and feeds all of it through `forward` as it comes; `logits` is for the last token only. Positions
are the caller's (`models.positions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.cache import DecoderCache
from models.config import DecoderConfig, ThinkerConfig
from models.decoder import Decoder, Deepstack
from models.qwen3_omni.audio_encoder import AudioEncoder
from models.qwen3_omni.vision_encoder import VisionEncoder


@dataclass(frozen=True, slots=True)
class ThinkerOutput:
    """What one forward made.

    Attributes:
        hidden: [T, H] after the final norm: input of `Thinker.logits`.
        captured: [T, H], output of the layer that the talker listens to; None without a talker.
    """

    hidden: Tensor
    captured: Tensor | None


class TextDecoder(Decoder):
    """The decoder with its table of text embeddings."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)


class Thinker(nn.Module):
    """Audio encoder, vision encoder, text decoder and output head.

    Args:
        config: the sizes.
        capture_layer: number of decoder layers after which hidden states go to the talker; None
            where the checkpoint has none.
    """

    def __init__(self, config: ThinkerConfig, *, capture_layer: int | None) -> None:
        super().__init__()
        self.capture_layer = capture_layer
        self.audio_tower = AudioEncoder(config.audio)
        self.visual = VisionEncoder(config.vision)
        self.model = TextDecoder(config.decoder)
        self.lm_head = nn.Linear(config.decoder.hidden_size, config.decoder.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        """Where this stage lies."""
        return self.lm_head.weight.device

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of text ids: [T] int64 -> [T, H]."""
        embeds: Tensor = self.model.embed_tokens(ids)
        return embeds

    def forward(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        cache: DecoderCache,
        deepstack: Deepstack | None = None,
    ) -> ThinkerOutput:
        """Append T tokens to the sequence in `cache`.

        Args:
            embeds: [T, H] of text and media.
            position_ids: [T] or [3, T] float32, rows T, H, W.
            cache: keys and values of the sequence so far.
            deepstack: features of the visual tokens among the T.

        Raises:
            ResourceError: the context is full; the cache was not changed.
        """
        return self.read_spans(embeds, position_ids, [cache], [len(embeds)], deepstack)

    def read_spans(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        caches: Sequence[DecoderCache],
        counts: Sequence[int],
        deepstack: Deepstack | None = None,
    ) -> ThinkerOutput:
        """`forward` for several sequences: `counts[i]` of the T tokens belong to `caches[i]`.

        Raises:
            ResourceError: a context is full; no cache was changed.
        """
        output = self.model.run_spans(
            embeds,
            position_ids,
            caches,
            counts,
            deepstack=deepstack,
            capture_layer=self.capture_layer,
        )
        return ThinkerOutput(output.hidden_states, output.captured)

    def step_rows(
        self, embeds: Tensor, position_ids: Tensor, caches: Sequence[DecoderCache]
    ) -> Tensor:
        """Append one token to each of several sequences: [B, H] -> [B, H] after the final norm.

        Args:
            embeds: [B, H]. position_ids: [B] or [3, B] float32. caches: of each row.

        Raises:
            ResourceError: a context is full; no cache was changed.
        """
        rotary = self.model.rotary(position_ids, embeds.dtype)
        return self.model.run_rows(embeds, rotary, caches).hidden_states

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next text id, float32: [H] -> [vocab], or [T, H] -> [T, vocab]."""
        scores: Tensor = self.lm_head(hidden)
        return scores.to(torch.float32)
