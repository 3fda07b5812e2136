"""The sizes of the embedded model: config.json over that of `models.tiny_config`, with its own ids.

About 18 million weights, 36 MB at 16 bits. Half as many code groups as the published model: sixteen
quantizers of 2048 say far more than one voice needs, and each group is a pass of the code
predictor in every 80 ms. Ids follow from the vocabulary. Data, and the function that joins it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.recipe.tokenizer import Vocabulary
from models.tiny_config import tiny_config

NUM_QUANTIZERS = 8
CODEBOOK_SIZE = 512
NUM_COMPONENTS = 96  # of a log-mel patch, for the codec
NUM_RESERVED_CODES = 1024  # the reference never speaks the last so many ids of the codec vocabulary
VOICE = "rms"

_ROPE: Mapping[str, Any] = {"rope_scaling": {"mrope_section": [12, 10, 10]}}
_EXPERTS: Mapping[str, Any] = {
    "head_dim": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "hidden_size": 256,
    **_ROPE,
}
_AUDIO: Mapping[str, Any] = {
    "d_model": 256,
    "downsample_hidden_size": 48,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 768,
    "encoder_layers": 4,
    "num_hidden_layers": 4,
    "n_window_infer": 800,
    "output_dim": 256,
}
_VISION: Mapping[str, Any] = {
    "deepstack_visual_indexes": [1],
    "depth": 4,
    "hidden_size": 160,
    "intermediate_size": 480,
    "num_heads": 4,
    "num_position_embeddings": 400,
    "image_size": 320,
    "out_hidden_size": 256,
}
CODE2WAV: Mapping[str, Any] = {
    "codebook_size": CODEBOOK_SIZE,
    "num_quantizers": NUM_QUANTIZERS,
    "decoder_dim": 96,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "sliding_window": 24,
}
_CODEC_IDS = {
    name: CODEBOOK_SIZE + place
    for place, name in enumerate(
        (
            *("codec_pad_id", "codec_bos_id", "codec_eos_token_id", "codec_nothink_id"),
            *("codec_think_bos_id", "codec_think_eos_id"),
        )
    )
}
_TALKER: Mapping[str, Any] = {
    **_CODEC_IDS,
    "accept_hidden_layer": 4,
    "num_code_groups": NUM_QUANTIZERS,
    "speaker_id": {VOICE: CODEBOOK_SIZE + len(_CODEC_IDS)},
    "thinker_hidden_size": 256,
    "text_config": {
        **_EXPERTS,
        "intermediate_size": 256,
        "moe_intermediate_size": 96,
        "num_hidden_layers": 4,
        "shared_expert_intermediate_size": 256,
        "vocab_size": CODEBOOK_SIZE + NUM_RESERVED_CODES,
    },
    "code_predictor_config": {
        "head_dim": 32,
        "hidden_size": 256,  # the talker's: its hidden states go in as they are
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_code_groups": NUM_QUANTIZERS,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "vocab_size": CODEBOOK_SIZE,
    },
}
_THINKER_TEXT: Mapping[str, Any] = {
    **_EXPERTS,
    "moe_intermediate_size": 192,
    "num_hidden_layers": 6,
}
_MEDIA_TOKENS: Mapping[str, str] = {
    "audio_end_token_id": "<|audio_end|>",
    "audio_start_token_id": "<|audio_start|>",
    "audio_token_id": "<|audio_pad|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
}
_TOP_TOKENS: Mapping[str, str] = {
    "im_start_token_id": "<|im_start|>",
    "im_end_token_id": "<|im_end|>",
    "tts_bos_token_id": "<tts_text_bos>",
    "tts_eos_token_id": "<tts_text_eod>",
    "tts_pad_token_id": "<tts_pad>",
}


def embedded_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """config.json of the embedded model with these words."""
    media = {field: vocabulary.special_id(token) for field, token in _MEDIA_TOKENS.items()}
    roles = {
        f"{role}_token_id": vocabulary.word_id(role) for role in ("system", "user", "assistant")
    }
    user = {"user_token_id": roles["user_token_id"]}
    return tiny_config(
        {
            **{field: vocabulary.special_id(token) for field, token in _TOP_TOKENS.items()},
            **roles,
            "omnid_babbles": False,
            "thinker_config": {
                **media,
                **user,
                "vision_end_token_id": vocabulary.special_id("<|vision_end|>"),
                "audio_config": _AUDIO,
                "vision_config": _VISION,
                "text_config": {**_THINKER_TEXT, "vocab_size": vocabulary.size},
            },
            "talker_config": {**media, **_TALKER},
            "code2wav_config": CODE2WAV,
        }
    )
