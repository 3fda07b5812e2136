"""Hugging Face `config.json` of a Qwen3-Omni checkpoint -> frozen dataclasses with our own names.

Every size and every special id that the networks and the engine use comes from here; nothing below
`models/` holds a constant of a published checkpoint. Absent fields mean what
`models.config_defaults` says. Reads the file only: no tensors, no tokenizer. Source of the
layout: `Qwen3OmniMoeConfig` of Hugging Face `transformers` (5.x and 4.57 keys).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from models import config_defaults as defaults
from models.errors import CheckpointError

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary embedding: base and, for multimodal rope, frequencies per (T, H, W) row."""

    theta: float
    mrope_section: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig:
    """Sparse feed-forward: routed experts and an optional gated shared expert."""

    num_experts: int
    num_experts_per_token: int
    expert_size: int
    normalize_top_k: bool
    shared_expert_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """One decoder-only transformer: thinker, talker, code predictor or the vocoder's front."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope: RopeConfig
    qk_norm: bool = True
    moe: MoeConfig | None = None
    sliding_window: int | None = None
    layer_scale: bool = False
    max_positions: int = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioEncoderConfig:
    """Audio encoder: conv chunks of `2 * n_window`, windows of `n_window_infer` mel frames."""

    num_mel_bins: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    n_window: int
    n_window_infer: int
    downsample_hidden_size: int
    output_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionEncoderConfig:
    """Vision encoder with deepstack mergers after the named blocks."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    output_size: int
    num_position_embeddings: int
    deepstack_indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkerConfig:
    """The understanding half: encoders, text decoder, and the ids that mark media in its prompt."""

    audio: AudioEncoderConfig
    vision: VisionEncoderConfig
    decoder: DecoderConfig
    audio_id: int
    audio_start_id: int
    audio_end_id: int
    image_id: int
    video_id: int
    vision_start_id: int
    vision_end_id: int | None
    positions_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkerConfig:
    """The speaking half: talker decoder, code predictor, codec ids and voices."""

    decoder: DecoderConfig
    predictor: DecoderConfig
    num_code_groups: int
    thinker_hidden_size: int
    accept_hidden_layer: int
    codec_bos_id: int
    codec_eos_id: int
    codec_pad_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    speaker_ids: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderConfig:
    """code2wav: code tables, causal transformer, upsampling ratios, convolutional decoder."""

    transformer: DecoderConfig
    codebook_size: int
    num_quantizers: int
    decoder_size: int
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OmniConfig:
    """A whole checkpoint.

    `talker` and `vocoder` are None where it has no speech (-Thinking, -Captioner).
    `is_babbling`: a random checkpoint made by `omnid checkpoint tiny`; what it says means nothing.
    """

    thinker: ThinkerConfig
    talker: TalkerConfig | None
    vocoder: VocoderConfig | None
    im_start_id: int
    im_end_id: int
    system_id: int
    user_id: int
    assistant_id: int
    tts_pad_id: int
    tts_bos_id: int
    tts_eos_id: int
    dtype: str
    is_babbling: bool = False


def read_config(folder: Path) -> OmniConfig:
    """Read `folder/config.json`.

    Raises:
        CheckpointError: no such file, not JSON, another architecture, or a missing field (named).
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no config.json: not a checkpoint folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can not read {path}: {error}") from error
    return parse_config(raw)


def parse_config(raw: Json) -> OmniConfig:
    """Turn the parsed JSON of a Qwen3-Omni `config.json` into an `OmniConfig`."""
    if not isinstance(raw, dict):
        raise CheckpointError("config.json is not a JSON object")
    if raw.get("model_type") != "qwen3_omni_moe":
        raise CheckpointError(
            f"model_type {raw.get('model_type')!r} is not supported; expected 'qwen3_omni_moe'"
        )
    try:
        config = _parse(raw)
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"config.json has a field of another kind: {error}") from error
    _check_numbers(config)
    return config


def _check_numbers(section: Any) -> None:
    """Sizes and numbers of things are whole and above 0, ids and layers may be 0.

    Raises:
        CheckpointError: one is not; it is named.
    """
    for one in fields(section):
        value = getattr(section, one.name)
        if is_dataclass(value):
            _check_numbers(value)
        elif one.type == "int":
            least = 0 if one.name.endswith(("_id", "_layer")) else 1
            if not isinstance(value, int) or value < least:
                raise CheckpointError(
                    f"config.json: {one.name} is {value!r}, not a whole number from {least} on"
                )


def _parse(raw: Json) -> OmniConfig:
    raw = _with(defaults.TOP, raw)
    has_speech = bool(raw["enable_audio_output"]) and "talker_config" in raw
    return OmniConfig(
        thinker=_thinker(raw["thinker_config"]),
        talker=_talker(raw["talker_config"]) if has_speech else None,
        vocoder=_vocoder(raw["code2wav_config"]) if has_speech else None,
        im_start_id=raw["im_start_token_id"],
        im_end_id=raw["im_end_token_id"],
        system_id=raw["system_token_id"],
        user_id=raw["user_token_id"],
        assistant_id=raw["assistant_token_id"],
        tts_pad_id=raw["tts_pad_token_id"],
        tts_bos_id=raw["tts_bos_token_id"],
        tts_eos_id=raw["tts_eos_token_id"],
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "bfloat16"),
        is_babbling=bool(raw.get("omnid_babbles", False)),
    )


def _with(section_defaults: Json, raw: Json) -> Json:
    """`raw` over its class defaults; a null counts as absent where there is a default."""
    if not isinstance(raw, dict):
        raise TypeError(f"{raw!r} is not an object")
    given = {key: value for key, value in raw.items() if value is not None}
    if "num_local_experts" in given:  # 5.x saves the talker's number of experts under this name
        given.setdefault("num_experts", given["num_local_experts"])
    return {**raw, **section_defaults, **given}


def _thinker(raw: Json) -> ThinkerConfig:
    raw = _with(defaults.THINKER, raw)
    return ThinkerConfig(
        audio=_audio(_with(defaults.AUDIO, raw["audio_config"])),
        vision=_vision(_with(defaults.VISION, raw["vision_config"])),
        decoder=_decoder(_with(defaults.TEXT, raw["text_config"])),
        audio_id=raw["audio_token_id"],
        audio_start_id=raw["audio_start_token_id"],
        audio_end_id=raw["audio_end_token_id"],
        image_id=raw["image_token_id"],
        video_id=raw["video_token_id"],
        vision_start_id=raw["vision_start_token_id"],
        vision_end_id=raw.get("vision_end_token_id"),
        positions_per_second=float(raw["position_id_per_seconds"]),
    )


def _audio(raw: Json) -> AudioEncoderConfig:
    return AudioEncoderConfig(
        num_mel_bins=raw["num_mel_bins"],
        hidden_size=raw["d_model"],
        num_layers=raw["encoder_layers"],
        num_heads=raw["encoder_attention_heads"],
        intermediate_size=raw["encoder_ffn_dim"],
        n_window=raw["n_window"],
        n_window_infer=raw["n_window_infer"],
        downsample_hidden_size=raw["downsample_hidden_size"],
        output_size=raw["output_dim"],
    )


def _vision(raw: Json) -> VisionEncoderConfig:
    return VisionEncoderConfig(
        depth=raw["depth"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_heads=raw["num_heads"],
        in_channels=raw["in_channels"],
        patch_size=raw["patch_size"],
        spatial_merge_size=raw["spatial_merge_size"],
        temporal_patch_size=raw["temporal_patch_size"],
        output_size=raw["out_hidden_size"],
        num_position_embeddings=raw["num_position_embeddings"],
        deepstack_indexes=tuple(raw["deepstack_visual_indexes"]),
    )


def _talker(raw: Json) -> TalkerConfig:
    raw = _with(defaults.TALKER, raw)
    return TalkerConfig(
        decoder=_decoder(_with(defaults.TALKER_TEXT, raw["text_config"])),
        predictor=_decoder(_with(defaults.CODE_PREDICTOR, raw["code_predictor_config"])),
        num_code_groups=raw["num_code_groups"],
        thinker_hidden_size=raw["thinker_hidden_size"],
        accept_hidden_layer=raw["accept_hidden_layer"],
        codec_bos_id=raw["codec_bos_id"],
        codec_eos_id=raw["codec_eos_token_id"],
        codec_pad_id=raw["codec_pad_id"],
        codec_nothink_id=raw["codec_nothink_id"],
        codec_think_bos_id=raw["codec_think_bos_id"],
        codec_think_eos_id=raw["codec_think_eos_id"],
        speaker_ids={name.lower(): code for name, code in (raw.get("speaker_id") or {}).items()},
    )


def _vocoder(raw: Json) -> VocoderConfig:
    raw = _with(defaults.CODE2WAV, raw)
    front = dict(raw, vocab_size=raw["codebook_size"] * raw["num_quantizers"])
    return VocoderConfig(
        transformer=_decoder(front, qk_norm=False, layer_scale=True),
        codebook_size=raw["codebook_size"],
        num_quantizers=raw["num_quantizers"],
        decoder_size=raw["decoder_dim"],
        upsample_rates=tuple(raw["upsample_rates"]),
        upsampling_ratios=tuple(raw["upsampling_ratios"]),
    )


def _decoder(raw: Json, *, qk_norm: bool = True, layer_scale: bool = False) -> DecoderConfig:
    num_heads = raw["num_attention_heads"]
    return DecoderConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=raw["num_key_value_heads"],
        head_dim=raw.get("head_dim") or raw["hidden_size"] // num_heads,
        intermediate_size=raw["intermediate_size"],
        rms_norm_eps=raw["rms_norm_eps"],
        rope=_rope(raw),
        qk_norm=qk_norm,
        moe=_moe(raw) if raw.get("num_experts") else None,
        sliding_window=raw.get("sliding_window") if layer_scale else None,
        layer_scale=layer_scale,
        max_positions=raw["max_position_embeddings"],
    )


def _rope(raw: Json) -> RopeConfig:
    """Both spellings: `rope_parameters` (5.x), `rope_theta` + `rope_scaling` (4.x, published)."""
    parameters: Json = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = parameters.get("rope_theta", raw["rope_theta"])
    section = parameters.get("mrope_section", raw.get("mrope_section"))
    return RopeConfig(theta=float(theta), mrope_section=tuple(section) if section else None)


def _moe(raw: Json) -> MoeConfig:
    if raw.get("mlp_only_layers") or raw.get("decoder_sparse_step", 1) != 1:
        raise CheckpointError("dense layers among sparse ones are not supported (mlp_only_layers)")
    return MoeConfig(
        num_experts=raw["num_experts"],
        num_experts_per_token=raw["num_experts_per_tok"],
        expert_size=raw["moe_intermediate_size"],
        normalize_top_k=bool(raw["norm_topk_prob"]),
        shared_expert_size=raw.get("shared_expert_intermediate_size") or None,
    )
