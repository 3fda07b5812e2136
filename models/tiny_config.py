"""The JSON files of a tiny checkpoint: the published fields and ids, small sizes.

Sizes keep the ratios that break careless code: grouped heads, head sizes that are not hidden /
heads, a shared expert of its own width, deepstack on three of four blocks, several attention
windows in five seconds of sound. Strides of the vocoder, ids and vocabularies are the published
ones. Data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_IDS = {
    "audio_end_token_id": 151670,
    "audio_start_token_id": 151669,
    "audio_token_id": 151675,
    "image_token_id": 151655,
    "position_id_per_seconds": 13,
    "seconds_per_chunk": 2,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
}
_DECODER = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 16,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_sliding_window": False,
}
_SPARSE = {
    "decoder_sparse_step": 1,
    "max_position_embeddings": 65536,
    "mlp_only_layers": [],
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "rope_scaling": {
        "interleaved": True,
        "mrope_interleaved": True,
        "mrope_section": [4, 2, 2],
        "rope_type": "default",
        "type": "default",
    },
    "router_aux_loss_coef": 0.001,
}
_AUDIO = {
    "activation_dropout": 0,
    "activation_function": "gelu",
    "attention_dropout": 0,
    "conv_chunksize": 500,
    "d_model": 32,
    "downsample_hidden_size": 8,
    "dropout": 0,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "encoder_layers": 2,
    "initializer_range": 0.02,
    "max_source_positions": 1500,
    "model_type": "qwen3_omni_moe_audio_encoder",
    "n_window": 50,
    "n_window_infer": 200,
    "num_hidden_layers": 2,
    "num_mel_bins": 128,
    "output_dim": 64,
    "scale_embedding": False,
}
_VISION = {
    "apply_vit_abs_pos_embed": True,
    "deepstack_visual_indexes": [0, 1, 2],
    "depth": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "image_size": 96,
    "in_channels": 3,
    "in_chans": 3,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "model_type": "qwen3_omni_moe_vision_encoder",
    "num_heads": 2,
    "num_position_embeddings": 36,
    "out_hidden_size": 64,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "spatial_patch_size": 16,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
}
_THINKER = {
    **_IDS,
    "audio_config": _AUDIO,
    "dtype": "float32",
    "initializer_range": 0.02,
    "model_type": "qwen3_omni_moe_thinker",
    "text_config": {
        **_DECODER,
        **_SPARSE,
        "hidden_size": 64,
        "intermediate_size": 24,
        "model_type": "qwen3_omni_moe_text",
        "num_hidden_layers": 6,
        "shared_expert_intermediate_size": 0,
        "use_qk_norm": True,
        "vocab_size": 152064,
    },
    "user_token_id": 872,
    "vision_config": _VISION,
    "vision_end_token_id": 151653,
}
_TALKER = {
    **_IDS,
    "accept_hidden_layer": 4,
    "code_predictor_config": {
        **_DECODER,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen3_omni_moe_talker_code_predictor",
        "num_code_groups": 16,
        "num_hidden_layers": 2,
        "rope_scaling": None,
        "vocab_size": 2048,
    },
    "codec_bos_id": 2149,
    "codec_eos_token_id": 2150,
    "codec_nothink_id": 2155,
    "codec_pad_id": 2148,
    "codec_think_bos_id": 2156,
    "codec_think_eos_id": 2157,
    "model_type": "qwen3_omni_moe_talker",
    "num_code_groups": 16,
    "output_router_logits": False,
    "spatial_merge_size": 2,
    "speaker_id": {"chelsie": 2301, "ethan": 2302, "aiden": 2303},
    "text_config": {
        **_DECODER,
        **_SPARSE,
        "hidden_size": 32,
        "intermediate_size": 40,
        "model_type": "qwen3_omni_moe_talker_text",
        "num_hidden_layers": 2,
        "shared_expert_intermediate_size": 40,
        "vocab_size": 3072,
    },
    "thinker_hidden_size": 64,
}
_CODE2WAV = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "codebook_dim": 16,
    "codebook_size": 2048,
    "decoder_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "layer_scale_initial_scale": 0.01,
    "max_position_embeddings": 8000,
    "model_type": "",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "num_quantizers": 16,
    "num_semantic_quantizers": 1,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000,
    "semantic_codebook_size": 4096,
    "sliding_window": 6,
    "upsample_rates": [8, 5, 4, 3],
    "upsampling_ratios": [2, 2],
    "vector_quantization_hidden_dimension": 16,
}
CONFIG: Mapping[str, Any] = {
    "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
    "assistant_token_id": 77091,
    "code2wav_config": _CODE2WAV,
    "dtype": "float32",
    "enable_audio_output": True,
    "im_end_token_id": 151645,
    "im_start_token_id": 151644,
    "model_type": "qwen3_omni_moe",
    "omnid_babbles": True,
    "system_token_id": 8948,
    "talker_config": _TALKER,
    "thinker_config": _THINKER,
    "transformers_version": "4.57.0.dev0",
    "tts_bos_token_id": 151672,
    "tts_eos_token_id": 151673,
    "tts_pad_token_id": 151671,
    "user_token_id": 872,
}
# Sixteen tokens are at least sixteen frames: more than a second of speech.
GENERATION: Mapping[str, Any] = {
    "do_sample": True,
    "eos_token_id": [151645],
    "max_new_tokens": 96,
    "min_new_tokens": 16,
    "pad_token_id": 151643,
    "temperature": 0.9,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "4.57.0.dev0",
}
PREPROCESSOR: Mapping[str, Any] = {
    "chunk_length": 300,
    "dither": 0.0,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_pixels": 12845056,
    "merge_size": 2,
    "min_pixels": 3136,
    "n_fft": 400,
    "n_samples": 4800000,
    "nb_max_frames": 30000,
    "padding_side": "right",
    "padding_value": 0.0,
    "patch_size": 16,
    "processor_class": "Qwen3OmniMoeProcessor",
    "return_attention_mask": True,
    "sampling_rate": 16000,
    "temporal_patch_size": 2,
}


def tiny_config(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A fresh config.json; `overrides` replaces single fields at any depth."""
    return _merged(deepcopy(dict(CONFIG)), overrides)


def _merged(base: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in overrides.items():
        inner = base.get(key)
        if isinstance(inner, dict) and isinstance(value, Mapping) and key != "speaker_id":
            _merged(inner, value)
        else:
            base[key] = value
    return base
