"""Random weights of a tiny checkpoint that behaves like a talker, for every seed and size.

Weights are drawn wider than usual, so that a wrong formula anywhere changes the output. Four
things are arranged:

- Text ends. One channel of the thinker's residual stream holds the same number at every text
  token: no layer writes to it. The output head reads it for the end token, so that this token is
  always about as likely as the best words.
- Text is visible. Rows of the output head are zero but for whole words and the end token; words
  lie well above zero.
- Speech ends after the text. Another channel of the text embeddings is set for the tokens that
  tell the talker that the text is over; it comes through the projection into a channel of the
  talker that no layer writes to, and only there the head of the end code looks.
- Speech is audible: the vocoder's last convolution is scaled to a usual level.

The levels are measured on the very networks, so they hold for other sizes as well.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.cache import KvCache
from models.config import DecoderConfig, OmniConfig
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.vocoder import Code2Wav
from models.tensor_names import expected_tensors
from models.weights import fill_weights

Tensors = dict[str, Tensor]

CONSTANT = 0  # the thinker's channel that is equal at all text tokens
TEXT_IS_OVER = (
    1  # the channel of the text embeddings that is set for the end and the padding of text
)
SPEECH_ENDS = 0  # the talker's channel that hears of it

WORD_LEVEL = 20.0  # words' mean logit: far above the zero of all that is no text
WORD_SPREAD = 1.5  # standard deviation of the words' logits
END_OF_TEXT = 2.9  # the end token's logit above the words' mean, in deviations: about their best
CODE_SPREAD = 1.5
END_OF_SPEECH = 7.0  # the end code's logit after the text, in deviations
PCM_LEVEL = 0.1

NUM_PROBES = 64


@torch.inference_mode()
def tiny_weights(config: OmniConfig, word_ids: Sequence[int], seed: int) -> Tensors:
    """Published name -> float32 tensor, in the order of the model's parameters.

    Args:
        word_ids: the text ids that may be said.
    """
    with torch.device("meta"):
        model = Qwen3Omni(config)
    shapes = expected_tensors(model)
    tensors = {name: _drawn(name, shape, seed) for name, shape in shapes.items()}
    _arrange_thinker(tensors, config, word_ids)
    if config.talker is not None:
        _arrange_talker(tensors, config)
    fill_weights(model, tensors)
    _set_text_levels(tensors, model, config, word_ids)
    if model.talker is not None:
        _set_code_levels(tensors, model, model.talker, config, word_ids)
    if model.code2wav is not None:
        _set_pcm_level(tensors, model.code2wav, seed)
    return tensors


# ------------------------------------------------------------------------------------ random draw
def _drawn(name: str, shape: torch.Size, seed: int) -> Tensor:
    """One tensor; its numbers depend on its name, its shape and the seed alone."""
    # torch's CPU generator looks at the low 32 bits of its seed only
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    noise = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        spread = 0.7 / math.sqrt(math.prod(shape[1:]))
        if len(shape) == 2:  # convolutions of hundreds of inputs, one behind the other, would grow
            spread = max(0.08, spread)
        return noise.mul_(min(0.5, spread))
    kind = name.rpartition(".")[2]
    if kind in ("bias", "alpha", "beta"):
        return noise.mul_(0.1)
    if kind in ("scale", "gamma"):
        return noise.mul_(0.1).add_(0.3)
    return noise.mul_(0.1).add_(1.0)  # norms


# ------------------------------------------------------------------------------------- arrangement
def _arrange_thinker(tensors: Tensors, config: OmniConfig, word_ids: Sequence[int]) -> None:
    decoder = config.thinker.decoder
    embed = tensors["thinker.model.embed_tokens.weight"]
    embed.div_(embed.std())
    embed[:, CONSTANT] = math.sqrt(decoder.hidden_size)
    embed[:, TEXT_IS_OVER] = 0.0
    embed[[config.tts_eos_id, config.tts_pad_id], TEXT_IS_OVER] = 1.0
    _silence(tensors, "thinker.model.layers.", CONSTANT)
    tensors["thinker.model.norm.weight"][CONSTANT] = 1.0
    head = tensors["thinker.lm_head.weight"]
    words = head[list(word_ids)]
    head.zero_()
    head[list(word_ids)] = words / words.std()


def _arrange_talker(tensors: Tensors, config: OmniConfig) -> None:
    assert config.talker is not None
    size = config.talker.decoder.hidden_size
    _silence(tensors, "talker.model.layers.", SPEECH_ENDS)
    tensors["talker.model.norm.weight"][SPEECH_ENDS] = 1.0
    for name, tensor in tensors.items():
        if name.startswith("talker.") and "codec_embedding" in name:
            tensor[:, SPEECH_ENDS] = 0.0
    for projection in ("talker.text_projection", "talker.hidden_projection"):
        tensors[f"{projection}.linear_fc2.weight"][SPEECH_ENDS] = 0.0
        tensors[f"{projection}.linear_fc2.bias"][SPEECH_ENDS] = 0.0
    first = tensors["talker.text_projection.linear_fc1.weight"]
    first[:, CONSTANT] = 0.0
    first[:, TEXT_IS_OVER] = 0.0
    first[0] = 0.0
    first[0, TEXT_IS_OVER] = 10.0  # SiLU is 0 at 0 and almost 10 at 10
    tensors["talker.text_projection.linear_fc1.bias"][0] = 0.0
    second = tensors["talker.text_projection.linear_fc2.weight"]
    second[:, 0] = 0.0
    second[SPEECH_ENDS, 0] = math.sqrt(size) / 10.0
    head = tensors["talker.codec_head.weight"]
    head.div_(head.std())
    head[:, SPEECH_ENDS] = 0.0


def _silence(tensors: Tensors, layers: str, channel: int) -> None:
    """No layer reads or writes this channel of the residual stream."""
    muted = ("o_proj.weight", "down_proj.weight", "layernorm.weight")
    for name, tensor in tensors.items():
        if name.startswith(layers) and name.endswith(muted):
            tensor[channel] = 0.0


# ------------------------------------------------------------------------------------------ levels
def _set_text_levels(
    tensors: Tensors, model: Qwen3Omni, config: OmniConfig, word_ids: Sequence[int]
) -> None:
    """Scale the output head by what the final norm gives at text tokens."""
    decoder = config.thinker.decoder
    ids = _probe_ids(word_ids)
    cache = _cache(decoder)
    hidden = model.thinker(model.thinker.embed(ids), _positions(len(ids)), cache).hidden
    constant, others = _levels(hidden, CONSTANT)
    head = tensors["thinker.lm_head.weight"]
    head.mul_(WORD_SPREAD / others)
    head[list(word_ids), CONSTANT] = WORD_LEVEL / constant
    head[config.im_end_id, CONSTANT] = (WORD_LEVEL + END_OF_TEXT * WORD_SPREAD) / constant


def _set_code_levels(
    tensors: Tensors,
    model: Qwen3Omni,
    talker: Talker,
    config: OmniConfig,
    word_ids: Sequence[int],
) -> None:
    """Scale the talker's head by what its final norm gives while there is text, and after."""
    assert config.talker is not None
    after = [config.tts_eos_id] + [config.tts_pad_id] * (NUM_PROBES // 4)
    ids = torch.cat([_probe_ids(word_ids), torch.tensor(after)])
    codes = (torch.arange(len(ids)) * 37) % config.talker.predictor.vocab_size
    inputs = talker.project_text(model.thinker.embed(ids)) + talker.model.codec_embedding(codes)
    for embedding in talker.code_predictor.model.codec_embedding:
        inputs = inputs + embedding(codes)
    cache = _cache(config.talker.decoder)
    hidden = talker(inputs, _positions(len(ids)), cache)
    _, others = _levels(hidden[:NUM_PROBES], SPEECH_ENDS)
    ending, others_after = _levels(hidden[NUM_PROBES:], SPEECH_ENDS)
    head = tensors["talker.codec_head.weight"]
    head.mul_(CODE_SPREAD / others)
    spread_after = CODE_SPREAD * others_after / others
    head[config.talker.codec_eos_id] = 0.0
    head[config.talker.codec_eos_id, SPEECH_ENDS] = END_OF_SPEECH * spread_after / ending


def _set_pcm_level(tensors: Tensors, code2wav: Code2Wav, seed: int) -> None:
    config = code2wav.config
    generator = torch.Generator().manual_seed(seed)
    shape = (16, config.num_quantizers)
    codes = torch.randint(0, config.codebook_size, shape, generator=generator)
    last = f"code2wav.decoder.{len(config.upsample_rates) + 2}.conv"
    convolution = code2wav.get_submodule(last.removeprefix("code2wav."))
    weight, bias = convolution.get_parameter("weight"), convolution.get_parameter("bias")
    weight.mul_(1e-3)  # far from the limit of 1, where the measure would be cut
    bias.zero_()
    pcm = code2wav(codes, code2wav.new_state())
    scale = PCM_LEVEL / float(pcm.std())
    tensors[f"{last}.weight"].mul_(1e-3 * scale)
    tensors[f"{last}.bias"].fill_(-float(pcm.mean()) * scale)


def _levels(hidden: Tensor, channel: int) -> tuple[float, float]:
    """Mean of one channel, and mean norm of all others, of [T, H] hidden states."""
    rest = hidden.clone()
    rest[:, channel] = 0.0
    return float(hidden[:, channel].mean()), float(rest.norm(dim=-1).mean())


def _probe_ids(word_ids: Sequence[int]) -> Tensor:
    """Some text: every seventh word."""
    return torch.tensor([word_ids[7 * i % len(word_ids)] for i in range(NUM_PROBES)])


def _positions(num_tokens: int) -> Tensor:
    return torch.arange(num_tokens, dtype=torch.float32)


def _cache(config: DecoderConfig) -> KvCache:
    return KvCache(config, device=torch.device("cpu"), dtype=torch.float32)


def total_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the weights as they are."""
    return sum(tensor.nbytes for tensor in tensors.values())
