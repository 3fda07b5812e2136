"""Other sizes of random checkpoint than the tiny one, as overrides of its config.json. Data only.

`FULL`: the published Qwen3-Omni-30B-A3B, 35 B parameters in all.
`SMALL`: every part at about a quarter of the published widths, so that the shares of time that the
parts take resemble the published model's, at 0.36 B parameters (0.16 B of them text tables).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROPE = {
    "interleaved": True,
    "mrope_interleaved": True,
    "mrope_section": [12, 10, 10],
    "rope_type": "default",
    "type": "default",
}

SMALL: Mapping[str, Any] = {
    "thinker_config": {
        "audio_config": {
            "d_model": 320,
            "downsample_hidden_size": 120,
            "encoder_attention_heads": 5,
            "encoder_ffn_dim": 1280,
            "encoder_layers": 8,
            "n_window_infer": 800,
            "num_hidden_layers": 8,
            "output_dim": 512,
        },
        "text_config": {
            "head_dim": 64,
            "hidden_size": 512,
            "intermediate_size": 192,
            "moe_intermediate_size": 192,
            "num_attention_heads": 16,
            "num_experts": 32,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 12,
            "num_key_value_heads": 2,
            "rope_scaling": _ROPE,
        },
        "vision_config": {
            "deepstack_visual_indexes": [2, 4, 5],
            "depth": 7,
            "hidden_size": 288,
            "intermediate_size": 1076,
            "num_heads": 4,
            "num_position_embeddings": 2304,
            "out_hidden_size": 512,
        },
    },
    "talker_config": {
        "accept_hidden_layer": 6,
        "code_predictor_config": {
            "head_dim": 64,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_attention_heads": 8,
            "num_hidden_layers": 5,
            "num_key_value_heads": 4,
        },
        "text_config": {
            "head_dim": 64,
            "hidden_size": 256,
            "intermediate_size": 512,
            "moe_intermediate_size": 96,
            "num_attention_heads": 8,
            "num_experts": 32,
            "num_experts_per_tok": 3,
            "num_hidden_layers": 5,
            "num_key_value_heads": 1,
            "rope_scaling": _ROPE,
            "shared_expert_intermediate_size": 192,
        },
        "thinker_hidden_size": 512,
    },
    "code2wav_config": {
        "decoder_dim": 384,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "sliding_window": 72,
    },
}

_FULL_ROPE = {**_ROPE, "mrope_section": [24, 20, 20]}

FULL: Mapping[str, Any] = {
    "dtype": "bfloat16",
    "thinker_config": {
        "audio_config": {
            "d_model": 1280,
            "downsample_hidden_size": 480,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "encoder_layers": 32,
            "n_window_infer": 800,
            "num_hidden_layers": 32,
            "output_dim": 2048,
        },
        "text_config": {
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 768,
            "moe_intermediate_size": 768,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "rope_scaling": _FULL_ROPE,
        },
        "vision_config": {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 2048,
        },
    },
    "talker_config": {
        "accept_hidden_layer": 24,
        "code_predictor_config": {
            "head_dim": 128,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_attention_heads": 16,
            "num_hidden_layers": 5,
            "num_key_value_heads": 8,
        },
        "text_config": {
            "head_dim": 128,
            "hidden_size": 1024,
            "intermediate_size": 2048,
            "moe_intermediate_size": 384,
            "num_attention_heads": 16,
            "num_experts": 128,
            "num_experts_per_tok": 6,
            "num_hidden_layers": 20,
            "num_key_value_heads": 2,
            "rope_scaling": _FULL_ROPE,
            "shared_expert_intermediate_size": 768,
        },
        "thinker_hidden_size": 2048,
    },
    "code2wav_config": {
        "decoder_dim": 1536,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "num_hidden_layers": 8,
        "num_key_value_heads": 16,
        "sliding_window": 72,
    },
}

SIZES: Mapping[str, Mapping[str, Any]] = {"tiny": {}, "small": SMALL, "full": FULL}
