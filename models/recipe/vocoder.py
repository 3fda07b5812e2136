"""Training of code2wav: codes of the reply voice -> its waveform.

Minimises spectral losses on random crops, with an average of the weights over steps as the result.
A run goes on from where the last one stopped: weights, optimiser and step are kept in one file, and
the crops of a step depend on the seed and the step alone. Data and codec: `models.recipe.stages`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.config import VocoderConfig
from models.qwen3_omni.vocoder import Code2Wav
from models.recipe.codec import FRAME_SAMPLES, Codec
from models.recipe.spectra import spectral_loss
from models.recipe.whole_vocoder import render

BATCH_SIZE = 8
CROP_FRAMES = 9
SKIPPED_FRAMES = 2  # of a crop from the middle: their past is missing
PEAK_RATE = 1e-3
WARMUP_STEPS = 100
RATE_HALVES_AFTER = 12_000  # steps; the rate falls with the root of the steps
AVERAGING = 0.998
QUIET = 0.02  # what the last convolution begins with
STEPS_PER_SAVE = 200
STEPS_PER_LOG = 50


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


def build_constants(vocoder: Code2Wav) -> None:
    """Make what is computed from the weights, for `render` and for the streaming forward."""
    for module in vocoder.modules():
        build = getattr(module, "build_constants", None)
        if build is not None:
            build(vocoder.code_embedding.weight.device)


@dataclass(slots=True, kw_only=True)
class VocoderTraining:
    """A run that can be stopped and resumed; `average` are the weights to use."""

    vocoder: Code2Wav
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    seed: int
    step: int = 0

    @classmethod
    def new(cls, config: VocoderConfig, codec: Codec, seed: int) -> VocoderTraining:
        """At step 0."""
        vocoder = new_vocoder(config, codec, seed)
        average = {name: p.detach().clone() for name, p in vocoder.named_parameters()}
        optimizer = torch.optim.AdamW(vocoder.parameters(), lr=PEAK_RATE, betas=(0.8, 0.99))
        return cls(vocoder=vocoder, average=average, optimizer=optimizer, seed=seed)

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        unfinished = path.with_suffix(".new")
        state: dict[str, Any] = {
            "vocoder": self.vocoder.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "seed": self.seed,
            "step": self.step,
        }
        torch.save(state, unfinished)
        unfinished.rename(path)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote."""
        state = torch.load(path, weights_only=True)
        self.vocoder.load_state_dict(state["vocoder"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.seed, self.step = state["seed"], state["step"]

    def averaged(self) -> Code2Wav:
        """A vocoder of the averaged weights, ready to stream."""
        vocoder = Code2Wav(self.vocoder.config)
        vocoder.load_state_dict(self.average)
        build_constants(vocoder)
        return vocoder.requires_grad_(False).eval()

    def take_step(self, clips: Sequence[Clip]) -> float:
        """One step on a batch of crops; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step)
        pcm, codes, skipped = _crops(clips, random.Random(f"{self.seed} {self.step}"))
        made = render(self.vocoder, codes)
        loss = spectral_loss(made[:, skipped:], pcm[:, skipped : made.shape[1]])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.vocoder.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._average()
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        share = min(AVERAGING, (1 + self.step) / (10 + self.step))
        for name, parameter in self.vocoder.named_parameters():
            self.average[name].lerp_(parameter, 1 - share)


def train(training: VocoderTraining, clips: Sequence[Clip], work: Path, minutes: float) -> None:
    """Go on for `minutes`; saves vocoder.pt and appends to vocoder.log in `work`."""
    stop = time.monotonic() + 60 * minutes
    usable = [clip for clip in clips if len(clip.codes) >= CROP_FRAMES]
    losses: list[float] = []
    began = time.monotonic()
    while time.monotonic() < stop:
        losses.append(training.take_step(usable))
        if training.step % STEPS_PER_LOG == 0:
            seconds = (time.monotonic() - began) / len(losses)
            line = {"step": training.step, "loss": sum(losses) / len(losses), "step_s": seconds}
            with (work / "vocoder.log").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            losses, began = [], time.monotonic()
        if training.step % STEPS_PER_SAVE == 0:
            training.save(work / "vocoder.pt")
    training.save(work / "vocoder.pt")


def learning_rate(step: int) -> float:
    """A short rise, then a fall with the root of the steps."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_RATE * rise * float((1 + 3 * step / RATE_HALVES_AFTER) ** -0.5)


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
