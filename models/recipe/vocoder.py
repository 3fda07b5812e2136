"""Training of code2wav: codes of the reply voice -> its waveform.

Minimises spectral losses on random crops. Data and codec: `models.recipe.stages`; stopping and
resuming: `models.recipe.run`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.config import VocoderConfig
from models.qwen3_omni.vocoder import Code2Wav
from models.recipe.batches import build_constants
from models.recipe.codec import FRAME_SAMPLES, Codec
from models.recipe.run import Effort, Pace, Run, keep_on, put_average
from models.recipe.spectra import spectral_loss
from models.recipe.whole_vocoder import render

BATCH_SIZE = 8
CROP_FRAMES = 9
SKIPPED_FRAMES = 2  # of a crop from the middle: their past is missing
PACE = Pace(
    peak_rate=1e-3,
    warmup_steps=100,
    rate_halves_after=12_000,
    averaging=0.998,
    betas=(0.8, 0.99),
)
QUIET = 0.02  # what the last convolution begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A sentence: samples [n * FRAME_SAMPLES] at 24 kHz, and codes [n, num_quantizers]."""

    pcm: Tensor
    codes: Tensor


def new_clip(pcm: Tensor, codec: Codec) -> Clip:
    """Encode a sentence; its end is padded to a whole frame."""
    padded = torch.cat([pcm, pcm.new_zeros(-len(pcm) % FRAME_SAMPLES)])
    return Clip(pcm=padded, codes=codec.encode(padded))


def new_vocoder(config: VocoderConfig, codec: Codec, seed: int) -> Code2Wav:
    """Untrained, but for the code table: it begins as the codec's books in random directions."""
    torch.manual_seed(seed)
    vocoder = Code2Wav(config)
    for name, parameter in vocoder.named_parameters():
        _initialise(name, parameter)
    size = config.transformer.hidden_size
    components = codec.books.shape[2]
    directions = torch.linalg.qr(torch.randn(max(size, components), size)).Q[:components]
    scale = codec.books[0].std() * components**0.5
    rows = (codec.books / scale).flatten(0, 1) @ directions * size**0.5 * config.num_quantizers
    with torch.no_grad():
        vocoder.code_embedding.weight.copy_(rows)
        vocoder.decoder.get_parameter(f"{len(vocoder.decoder) - 1}.conv.weight").mul_(QUIET)
    build_constants(vocoder)
    return vocoder


def new_run(config: VocoderConfig, codec: Codec, seed: int) -> Run:
    """A run at step 0; its module is a `Code2Wav`."""
    return Run.new(new_vocoder(config, codec, seed), PACE, seed)


def averaged(run: Run) -> Code2Wav:
    """A vocoder of the averaged weights, ready to stream."""
    vocoder = Code2Wav(_module(run).config)
    put_average(run, vocoder)
    build_constants(vocoder)
    return vocoder.requires_grad_(False).eval()


def take_step(run: Run, clips: Sequence[Clip]) -> dict[str, float]:
    """One step on a batch of crops; clips have at least CROP_FRAMES frames."""
    run.begin_step()
    pcm, codes, skipped = _crops(clips, random.Random(f"{run.seed} {run.step}"))
    made = render(_module(run), codes)
    loss = spectral_loss(made[:, skipped:], pcm[:, skipped : made.shape[1]])
    loss.backward()  # type: ignore[no-untyped-call]
    run.end_step()
    return {"loss": loss.item()}


def train(run: Run, clips: Sequence[Clip], path: Path, effort: Effort) -> None:
    """Go on; saves to `path`."""
    usable = [clip for clip in clips if len(clip.codes) >= CROP_FRAMES]
    keep_on(run, lambda: take_step(run, usable), path, effort=effort)


def _module(run: Run) -> Code2Wav:
    assert isinstance(run.module, Code2Wav)
    return run.module


@torch.no_grad()
def speak(vocoder: Code2Wav, codes: Tensor) -> Tensor:
    """Codes [n, num_quantizers] -> samples, by the streaming forward."""
    samples: Tensor = vocoder(codes, vocoder.new_state())
    return samples


def _crops(clips: Sequence[Clip], chance: random.Random) -> tuple[Tensor, Tensor, int]:
    """[B, CROP_FRAMES * FRAME_SAMPLES], [B, CROP_FRAMES, Q], samples without a past.

    One batch in eight is of beginnings, where nothing is missing.
    """
    is_beginning = chance.random() < 0.125
    pcm, codes = [], []
    for clip in chance.choices(clips, [len(clip.codes) for clip in clips], k=BATCH_SIZE):
        start = 0 if is_beginning else chance.randint(0, len(clip.codes) - CROP_FRAMES)
        stop = start + CROP_FRAMES
        pcm.append(clip.pcm[start * FRAME_SAMPLES : stop * FRAME_SAMPLES])
        codes.append(clip.codes[start:stop])
    skipped = 0 if is_beginning else SKIPPED_FRAMES * FRAME_SAMPLES
    return torch.stack(pcm), torch.stack(codes), skipped


@torch.no_grad()
def _initialise(name: str, parameter: Tensor) -> None:
    kind = name.rpartition(".")[2]
    if parameter.dim() >= 2:
        fan_in = parameter[0].numel()
        if (".conv." in name and "upsample" in name) or ".block.1.conv" in name:
            fan_in = parameter.shape[0] * max(1, parameter.shape[2] // 4)
        gain = 0.2 if "conv2.conv" in name else 1.0  # residual branches begin small
        nn.init.normal_(parameter, std=min(0.5, gain * fan_in**-0.5))
    elif kind in ("alpha", "beta", "bias"):
        nn.init.zeros_(parameter)
    elif kind in ("scale", "gamma"):
        nn.init.constant_(parameter, 0.1)
    else:
        nn.init.ones_(parameter)
