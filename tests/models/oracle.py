"""The oracle: a tiny random Qwen3-Omni of Hugging Face `transformers`, its known faults repaired.

All special ids and the layout of prompts are the published ones; sizes are small, but every path of
the published model is there: deepstack below the captured layer, shared experts, sliding window,
M-RoPE rows. Imported by `conftest.py`, which puts this folder on the path; tests reach it through
the fixture `oracle`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    WhisperFeatureExtractor,
)

from models.config import OmniConfig

IM_START, IM_END, NEWLINE = 151644, 151645, 198
SYSTEM, USER, ASSISTANT = 8948, 872, 77091
VISION_START, VISION_END, IMAGE, VIDEO = 151652, 151653, 151655, 151656
AUDIO_START, AUDIO_END, AUDIO = 151669, 151670, 151675

SCENARIOS = (
    "text",
    "audio",
    "image",
    "video",
    "image+audio+video",
    "audio-in-video",
    "multi-turn",
)


@dataclass(frozen=True, slots=True)
class Oracle:
    """The reference model, its checkpoint in the published format, and our view of its config."""

    model: Any
    folder: Path
    config: OmniConfig

    def scenario(self, name: str) -> dict[str, Any]:
        """Arguments of `model.generate` for a prompt of one kind (`SCENARIOS`)."""
        return scenario(name)

    def generate(
        self, name: str, *, text_tokens: int = 8, frames: int = 12
    ) -> tuple[Tensor, Tensor]:
        """Greedy reply: all ids [P + n]; waveform [samples] of at most `frames - 1` frames."""
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of how it calls itself
            ids, wav = self.model.generate(
                **self.scenario(name),
                thinker_max_new_tokens=text_tokens,
                talker_max_new_tokens=frames,
                thinker_do_sample=False,
                talker_do_sample=False,
                speaker="Ethan",
                return_audio=True,
            )
        return ids[0], wav.reshape(-1)


def tiny_config() -> Any:
    """A Qwen3-Omni config of the published structure and ids, with small sizes."""
    hidden, talker_hidden = 64, 32
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    moe: dict[str, Any] = {
        "moe_intermediate_size": 24,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
    }
    mrope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [4, 2, 2],
        "interleaved": True,
        "mrope_interleaved": True,
    }
    ids: dict[str, Any] = {
        "audio_token_id": AUDIO,
        "audio_start_token_id": AUDIO_START,
        "audio_end_token_id": AUDIO_END,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": VISION_START,
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
    }
    text = dict(
        vocab_size=152064,
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=6,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        rope_parameters=mrope,
        max_position_embeddings=65536,
        tie_word_embeddings=False,
        **heads,
        **moe,
    )
    talker_text = dict(
        vocab_size=3072,
        hidden_size=talker_hidden,
        intermediate_size=40,
        num_hidden_layers=2,
        shared_expert_intermediate_size=40,
        rope_parameters=mrope,
        max_position_embeddings=65536,
        **heads,
        **moe,
    )
    predictor = dict(
        vocab_size=2048,
        hidden_size=talker_hidden,
        intermediate_size=48,
        num_hidden_layers=2,
        num_code_groups=16,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        **heads,
    )
    thinker = dict(
        audio_config=_audio_config(hidden),
        vision_config=_vision_config(hidden),
        text_config=text,
        vision_end_token_id=VISION_END,
        **ids,
    )
    talker = dict(
        accept_hidden_layer=4,  # above the deepstack layers, as published (24; deepstack 0..2)
        num_code_groups=16,
        thinker_hidden_size=hidden,
        spatial_merge_size=2,
        codec_bos_id=2149,
        codec_eos_token_id=2150,
        codec_pad_id=2148,
        codec_nothink_id=2155,
        codec_think_bos_id=2156,
        codec_think_eos_id=2157,
        speaker_id={"chelsie": 2301, "ethan": 2302, "aiden": 2303},
        code_predictor_config=predictor,
        text_config=talker_text,
        **ids,
    )
    return Qwen3OmniMoeConfig(
        thinker_config=thinker, talker_config=talker, code2wav_config=_vocoder_config()
    )


def _audio_config(output_size: int) -> dict[str, Any]:
    return {
        "num_mel_bins": 128,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "max_source_positions": 1500,
        "n_window": 50,
        "n_window_infer": 200,
        "conv_chunksize": 3,
        "downsample_hidden_size": 8,
        "output_dim": output_size,
    }


def _vision_config(output_size: int) -> dict[str, Any]:
    return {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": output_size,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 1, 2],
    }


def _vocoder_config() -> dict[str, Any]:
    return {
        "codebook_size": 2048,
        "num_quantizers": 16,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "sliding_window": 6,
        "decoder_dim": 32,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "max_position_embeddings": 8000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }


def build_oracle(seed: int = 0, changes: Mapping[str, Any] | None = None) -> Any:
    """The tiny model with random weights wide enough that every path shows in the output.

    Args:
        changes: other values of config fields by their dotted names.
    """
    torch.manual_seed(seed)
    model = Qwen3OmniMoeForConditionalGeneration(_changed(tiny_config(), changes or {})).eval()
    _spread(model, torch.Generator().manual_seed(seed + 1))
    _calibrate(model.code2wav.decoder[-1].conv, lambda: model.code2wav(_some_codes()))
    # The reference talker reads `config.audio_config` when a request holds audio and pictures, but
    # neither its config class nor the published talker config has one.
    model.talker.config.audio_config = model.config.thinker_config.audio_config
    return model


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    if not changes:
        return config
    raw = config.to_dict()
    for name, value in changes.items():
        *path, field = name.split(".")
        part = raw
        for step in path:
            part = part[step]
        assert field in part, name
        part[field] = value
        if field == "num_hidden_layers":
            part.pop("layer_types", None)  # has one entry a layer
    return Qwen3OmniMoeConfig(**raw)


def _some_codes() -> Tensor:
    return torch.randint(0, 2048, (1, 16, 20), generator=torch.Generator().manual_seed(0))


def _spread(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Default weights leave residual paths near identity: a parity test would not bite."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() >= 2:
                fan_in = weight.shape[-1] if weight.dim() == 2 else weight[0].numel()
                weight.copy_(noise * min(0.5, max(0.08, 0.7 / fan_in**0.5)))
            elif name.endswith("bias") or "alpha" in name or "beta" in name:
                weight.copy_(noise * 0.1)
            elif "scale" in name or "gamma" in name:
                weight.copy_(0.3 + 0.1 * noise)
            else:
                weight.copy_(1.0 + 0.1 * noise)


def _calibrate(conv: Any, run: Callable[[], Any], target_rms: float = 0.1) -> None:
    """Scale the last convolution so that the waveform neither clips nor vanishes."""
    outputs: list[Tensor] = []
    hook = conv.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        conv.bias.zero_()
        run()
        hook.remove()
        scale = target_rms / outputs[0].std()
        conv.weight.mul_(scale)
        conv.bias.sub_(outputs[0].mean() * scale)


def turn(role: int, body: list[int]) -> list[int]:
    """Ids of one whole turn."""
    return [IM_START, role, NEWLINE, *body, IM_END, NEWLINE]


def num_audio_tokens(num_mel_frames: int) -> int:
    """Tokens that the audio encoder makes of a clip: 13 for each 100 mel frames."""
    rest = num_mel_frames % 100
    for _ in range(3):
        rest = (rest - 1) // 2 + 1
    return rest + 13 * (num_mel_frames // 100)


def patches(grid: tuple[int, int, int], seed: int) -> dict[str, Tensor]:
    """Random patches of a picture or video of `grid` (t, h, w), and the grid as a tensor."""
    num_patches = grid[0] * grid[1] * grid[2]
    noise = torch.randn(num_patches, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(seed))
    return {"pixels": noise, "grid": torch.tensor([grid])}


def interleaved(num_audio: int, grid: tuple[int, int, int], seconds_per_grid: float) -> list[int]:
    """Placeholders of a video with its own sound: by time, the picture first where both are due."""
    per_grid = grid[1] * grid[2] // 4
    due = [(step * seconds_per_grid * 13, 0, VIDEO) for step in range(grid[0])] * per_grid
    due += [(float(step), 1, AUDIO) for step in range(num_audio)]
    return [token for _, _, token in sorted(due)]


def scenario(name: str) -> dict[str, Any]:
    """Prompt ids and media of one kind of request: arguments of the reference's `generate`."""
    noise = np.random.default_rng(0).standard_normal(16000 * 5 + 777)
    features = WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16000, hop_length=160, n_fft=400, chunk_length=300
    )(
        [(0.3 * noise).astype(np.float32)],
        sampling_rate=16000,
        return_attention_mask=True,
        return_tensors="pt",
        padding=True,
        truncation=False,
    )
    num_audio = num_audio_tokens(int(features["attention_mask"].sum()))
    image, video = patches((1, 6, 10), seed=0), patches((3, 4, 6), seed=1)
    audio_args = {
        "input_features": features["input_features"],
        "feature_attention_mask": features["attention_mask"],
    }
    image_args = {"pixel_values": image["pixels"], "image_grid_thw": image["grid"]}
    video_args = {
        "pixel_values_videos": video["pixels"],
        "video_grid_thw": video["grid"],
        "video_second_per_grid": torch.tensor([2.0]),
    }
    text = list(range(1000, 1012))
    audio_ids = [AUDIO_START, *[AUDIO] * num_audio, AUDIO_END]
    image_ids = [VISION_START, *[IMAGE] * 15, VISION_END]
    video_ids = [VISION_START, *[VIDEO] * 18, VISION_END]
    both_ids = interleaved(num_audio, (3, 4, 6), 2.0)
    both_ids = [VISION_START, AUDIO_START, *both_ids, AUDIO_END, VISION_END]
    history = turn(USER, image_ids + text) + turn(ASSISTANT, text[:5])
    bodies: dict[str, tuple[list[int], dict[str, Any]]] = {
        "text": (turn(USER, text), {}),
        "audio": (turn(USER, audio_ids + text), audio_args),
        "image": (turn(USER, image_ids + text), image_args),
        "video": (turn(USER, video_ids + text), video_args),
        "image+audio+video": (
            turn(USER, image_ids + audio_ids + video_ids + text),
            {**image_args, **audio_args, **video_args},
        ),
        "audio-in-video": (
            turn(USER, both_ids + text),
            {**audio_args, **video_args, "use_audio_in_video": True},
        ),
        "multi-turn": (history + turn(USER, text[3:]), image_args),
    }
    body, media = bodies[name]
    ids = [*turn(SYSTEM, [2610, 525, 264]), *body, IM_START, ASSISTANT, NEWLINE]
    tokens = torch.tensor([ids])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **media}
