"""Sounds and pictures of messages as the published processors give them to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from models.content import Audio, Image, Message
from models.qwen3_omni.images import (
    FRAME_LIMITS,
    IMAGE_LIMITS,
    Patches,
    PixelLimits,
    patchify,
)


def media(messages: tuple[Message, ...], limits: PixelLimits = IMAGE_LIMITS) -> dict[str, Any]:
    """The encoders' inputs as the published processors make them."""
    parts = [part for message in messages for part in message.parts]
    sounds = [part for part in parts if isinstance(part, Audio)]
    stills = [part for part in parts if isinstance(part, Image)]
    given: dict[str, Any] = {}
    if sounds:
        given |= sound_features([part.pcm for part in sounds])
    if stills:
        grids = [patchify((part.rgb,), limits=limits) for part in stills]
        given["pixel_values"] = torch.from_numpy(np.concatenate([grid.patches for grid in grids]))
        given["image_grid_thw"] = torch.tensor([[1, *grid.size] for grid in grids])
    for part in sounds:
        if part.frames:
            given |= video_features([rgb for _, rgb in part.frames])
    return given


def sound_features(clips: list[np.ndarray]) -> dict[str, Any]:
    """Each clip by itself: in a batch the reference's extractor treats shorter ones otherwise."""
    extract = WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16000, hop_length=160, n_fft=400, chunk_length=300
    )
    made = [
        extract([clip], sampling_rate=16000, return_tensors="pt", padding=True, truncation=False)
        for clip in clips
    ]
    features = [one["input_features"][0] for one in made]
    length = max(one.shape[1] for one in features)
    padded = [torch.nn.functional.pad(one, (0, length - one.shape[1])) for one in features]
    masks = [torch.arange(length) < one.shape[1] for one in features]
    return {
        "input_features": torch.stack(padded),
        "feature_attention_mask": torch.stack(masks).long(),
    }


def video_features(pictures: list[np.ndarray]) -> dict[str, Any]:
    pairs = [pictures[index : index + 2] for index in range(0, len(pictures), 2)]
    grids: list[Patches] = [patchify(pair, limits=FRAME_LIMITS) for pair in pairs]
    return {
        "pixel_values_videos": torch.from_numpy(np.concatenate([grid.patches for grid in grids])),
        "video_grid_thw": torch.tensor([[len(grids), *grids[0].size]]),
        "video_second_per_grid": torch.tensor([1.0]),
        "use_audio_in_video": True,
    }
