"""The talker: speaks the thinker's text, one codec frame of 80 ms per step.

Its context is the user's segments (media as the thinker's captured hidden states, text as
embeddings, each through a projection of its own), then nine positions that name the voice and bring
the first word, then one position per frame: the frame's code embeddings plus the next text token.
Of the reply it needs text ids only. Order of operations as in Hugging Face `qwen3_omni_moe`;
sampling is `models.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.cache import DecoderCache
from models.config import DecoderConfig, OmniConfig, TalkerConfig
from models.decode_step import project
from models.decoder import Decoder
from models.errors import CheckpointError, RequestError
from models.qwen3_omni.code_predictor import CodePredictor
from models.sampling import NEGATIVE_INFINITY

NUM_PREFIX_CODES = 6  # fed behind the assistant's header, before a reply's first frame
NUM_RESERVED_CODES = 1024  # at the end of the codec vocabulary: never spoken, save the end id


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialText:
    """Projected embeddings of the text ids that surround every reply; made once per loaded model.

    Attributes:
        header: [3, H], the assistant's turn header.
        pad, begin, end: [H] each, what is fed where no reply text is.
    """

    header: Tensor
    pad: Tensor
    begin: Tensor
    end: Tensor


class CodecDecoder(Decoder):
    """The decoder with the table of first codes and codec control ids."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.codec_embedding = nn.Embedding(config.vocab_size, config.hidden_size)


class Projection(nn.Module):
    """Two linear layers from the thinker's width to the talker's."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        inner = config.decoder.intermediate_size
        self.linear_fc1 = nn.Linear(config.thinker_hidden_size, inner)
        self.linear_fc2 = nn.Linear(inner, config.decoder.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[T, thinker H] -> [T, H]."""
        projected: Tensor = self.linear_fc2(F.silu(self.linear_fc1(hidden_states)))
        return projected


class Talker(nn.Module):
    """Projections, codec decoder, head of the first code, and the code predictor.

    Raises:
        CheckpointError: the config has no talker.
    """

    banned: Tensor  # [vocab] bool, codec ids that are never drawn

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        if config.talker is None:
            raise CheckpointError("this checkpoint has no talker")
        self.omni, self.config = config, config.talker
        self.codec_eos_id = config.talker.codec_eos_id
        decoder = config.talker.decoder
        self.model = CodecDecoder(decoder)
        self.text_projection = Projection(config.talker)
        self.hidden_projection = Projection(config.talker)
        self.codec_head = nn.Linear(decoder.hidden_size, decoder.vocab_size, bias=False)
        self.code_predictor = CodePredictor(config.talker)
        self.register_buffer("banned", None, persistent=False)

    def build_constants(self, device: torch.device) -> None:
        """Make the mask of codec ids that are never drawn."""
        ids = torch.arange(self.config.decoder.vocab_size, device=device)
        reserved = ids >= self.config.decoder.vocab_size - NUM_RESERVED_CODES
        self.banned = reserved & (ids != self.config.codec_eos_id)

    @property
    def device(self) -> torch.device:
        """Where this stage lies."""
        return self.codec_head.weight.device

    def project_text(self, embeds: Tensor) -> Tensor:
        """Text embeddings of the thinker, from wherever it lies: [T, thinker H] -> [T, H]."""
        projected: Tensor = self.text_projection(embeds.to(self.device))
        return projected

    def project_hidden(self, hidden: Tensor) -> Tensor:
        """Captured hidden states of media tokens, from wherever the thinker lies: [T, thinker H] ->
        [T, H].
        """
        projected: Tensor = self.hidden_projection(hidden.to(self.device))
        return projected

    def special_text(
        self, thinker_embed: Callable[[Tensor], Tensor], header_ids: Sequence[int]
    ) -> SpecialText:
        """Project the fixed text of replies. Make it once, keep it.

        Args:
            thinker_embed: `Thinker.embed`, which takes these ids from where the talker lies.
            header_ids: the assistant's turn header, newline included, as the tokenizer has it.
        """
        omni = self.omni
        ids = [*header_ids, omni.tts_pad_id, omni.tts_bos_id, omni.tts_eos_id]
        text = self.project_text(thinker_embed(torch.tensor(ids, device=self.banned.device)))
        return SpecialText(header=text[:-3], pad=text[-3], begin=text[-2], end=text[-1])

    def speaker_id(self, voice: str) -> int:
        """Codec id of a voice's name, in any case.

        Raises:
            RequestError: the checkpoint has no such voice; the message lists its voices.
        """
        speakers = self.config.speaker_ids
        if voice.lower() not in speakers:
            raise RequestError(f"unknown voice {voice!r}; this model has {', '.join(speakers)}")
        return speakers[voice.lower()]

    def reply_prefix(self, special: SpecialText, speaker_id: int, first_text: Tensor) -> Tensor:
        """What is fed before the first frame: [9, H].

        Args:
            special: what `special_text` made.
            speaker_id: codec id of the voice.
            first_text: [H] or [1, H], `project_text` of the reply's first token.
        """
        config = self.config
        ids = [
            *(config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id),
            *(speaker_id, config.codec_pad_id, config.codec_bos_id),
        ]
        codec = self.embed_code(torch.tensor(ids, device=self.banned.device))  # [6, H]
        text = torch.cat((special.pad.expand(4, -1), special.begin[None], first_text.view(1, -1)))
        return torch.cat((special.header, text + codec))

    @staticmethod
    def prefix_length(special: SpecialText) -> int:
        """Positions of `reply_prefix`."""
        return len(special.header) + NUM_PREFIX_CODES

    def embed_code(self, codes: Tensor) -> Tensor:
        """Embeddings of first codes or codec control ids: [...] int64 -> [..., H]."""
        embeds: Tensor = self.model.codec_embedding(codes)
        return embeds

    def embed_frames(self, codes: Tensor, residuals: Tensor, texts: Tensor) -> Tensor:
        """Inputs of the steps after frames of several voices: first codes [B], sums of the others'
        embeddings [B, H], and the next texts [B, H] -> [B, H].
        """
        return self.embed_code(codes) + (residuals + texts)

    def forward(self, embeds: Tensor, position_ids: Tensor, cache: DecoderCache) -> Tensor:
        """Append T positions to the sequence in `cache`: [T, H] -> [T, H] after the final norm.

        Args:
            embeds: [T, H].
            position_ids: [T] or [3, T] float32, rows T, H, W.
            cache: keys and values of the sequence so far.

        Raises:
            ResourceError: the context is full; the cache was not changed.
        """
        return self.read_spans(embeds, position_ids, [cache], [len(embeds)])

    def read_spans(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        caches: Sequence[DecoderCache],
        counts: Sequence[int],
    ) -> Tensor:
        """`forward` for several sequences: `counts[i]` of the T positions belong to `caches[i]`.

        Raises:
            ResourceError: a context is full; no cache was changed.
        """
        return self.model.run_spans(embeds, position_ids, caches, counts).hidden_states

    def step_rows(
        self, embeds: Tensor, position_ids: Tensor, caches: Sequence[DecoderCache]
    ) -> Tensor:
        """Append one position to each of several sequences: [B, H] -> [B, H] after the final norm.

        Args:
            embeds: [B, H]. position_ids: [B] float32. caches: of each row.

        Raises:
            ResourceError: a context is full; no cache was changed.
        """
        rotary = self.model.rotary(position_ids, embeds.dtype)
        return self.model.run_rows(embeds, rotary, caches).hidden_states

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Scores of a frame's first code, float32, never-spoken ids at -inf: [..., H] -> [...,
        vocab].
        """
        scores = project(self.codec_head, hidden)
        return scores.to(torch.float32).masked_fill(self.banned, NEGATIVE_INFINITY)
