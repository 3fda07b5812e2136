"""What an absent field of `config.json` means: the class defaults of `transformers` 5.x.

A saved config may leave out fields that equal its class's default, so absent means this table and
nothing else. They are *not* the published values (the published files spell those out). Fields
without an entry here are required. Data only; `models.config` reads it. Source:
`configuration_qwen3_omni_moe.py`, class by class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOP: Mapping[str, Any] = {
    "enable_audio_output": True,
    "im_start_token_id": 151644,
    "im_end_token_id": 151645,
    "tts_pad_token_id": 151671,
    "tts_bos_token_id": 151672,
    "tts_eos_token_id": 151673,
    "system_token_id": 8948,
    "user_token_id": 872,
    "assistant_token_id": 77091,
}

THINKER: Mapping[str, Any] = {
    "position_id_per_seconds": 25,
    "audio_token_id": 151646,
    "audio_start_token_id": 151647,
    "image_token_id": 151655,
    "video_token_id": 151656,
}

AUDIO: Mapping[str, Any] = {
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "n_window": 50,
    "n_window_infer": 800,
    "downsample_hidden_size": 480,
    "output_dim": 3584,
}

VISION: Mapping[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": (8, 16, 24),
}

TEXT: Mapping[str, Any] = {
    "vocab_size": 3584,
    "hidden_size": 2048,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "mrope_section": (24, 20, 20),
    "moe_intermediate_size": 768,
    "num_experts_per_tok": 8,
    "num_experts": 128,
    "norm_topk_prob": True,
}

TALKER: Mapping[str, Any] = {
    "num_code_groups": 32,
    "thinker_hidden_size": 2048,
    "accept_hidden_layer": 18,
    "codec_pad_id": 4196,
    "codec_bos_id": 4197,
    "codec_eos_token_id": 4198,
    "codec_nothink_id": 4203,
    "codec_think_bos_id": 4204,
    "codec_think_eos_id": 4205,
}

TALKER_TEXT: Mapping[str, Any] = {
    "vocab_size": 3072,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "mrope_section": (24, 20, 20),
    "moe_intermediate_size": 384,
    "num_experts_per_tok": 8,
    "num_experts": 128,
    "norm_topk_prob": False,
}

CODE_PREDICTOR: Mapping[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 5,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
}

CODE2WAV: Mapping[str, Any] = {
    "codebook_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 8000,
    "sliding_window": 72,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "num_quantizers": 16,
    "decoder_dim": 1536,
    "upsample_rates": (8, 5, 4, 3),
    "upsampling_ratios": (2, 2),
}
