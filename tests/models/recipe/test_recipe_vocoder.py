"""Training of code2wav: its whole-sequence forward is the streaming one; a run can be resumed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.config import VocoderConfig, parse_config
from models.recipe import run as runs
from models.recipe.batches import build_constants
from models.recipe.codec import FRAME_SAMPLES, Codec, learn_codec
from models.recipe.vocoder import averaged, new_clip, new_run, new_vocoder, speak, take_step
from models.recipe.whole_vocoder import render
from models.tiny_config import tiny_config

SMALL = {
    "codebook_size": 16,
    "num_quantizers": 3,
    "decoder_dim": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "sliding_window": 4,
}


def config() -> VocoderConfig:
    found = parse_config(tiny_config({"code2wav_config": SMALL})).vocoder
    assert found is not None
    return found


def clip(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(12 * FRAME_SAMPLES, generator=generator)


def codec() -> Codec:
    return learn_codec(
        [clip(0), clip(1)], num_quantizers=3, codebook_size=16, num_components=8, seed=0
    )


def test_whole_equals_streaming() -> None:
    """Beyond the attention window, in steps of any size, with weights away from their start."""
    vocoder = new_vocoder(config(), codec(), 0)
    with torch.no_grad():
        for parameter in vocoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        build_constants(vocoder)
        codes = torch.randint(0, 16, (2, 11, 3))
        whole = render(vocoder, codes).clamp(-1, 1)
        for row, expected in zip(codes, whole, strict=True):
            state = vocoder.new_state()
            made = torch.cat([vocoder(part, state) for part in row.split((1, 4, 6))])
            assert made.shape == expected.shape
            assert torch.allclose(made, expected, atol=1e-5)


def test_every_weight_learns() -> None:
    training = new_run(config(), codec(), 0)
    before = {name: p.detach().clone() for name, p in training.module.named_parameters()}
    take_step(training, [new_clip(clip(0), codec())])
    assert [n for n, p in training.module.named_parameters() if torch.equal(p, before[n])] == []


def test_the_loss_falls_and_a_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    clips = [new_clip(clip(seed), codec()) for seed in (0, 1)]
    through = new_run(config(), codec(), 0)
    losses = [take_step(through, clips)["loss"] for _ in range(8)]
    assert losses[-1] < losses[0]
    stopped = new_run(config(), codec(), 0)
    for _ in range(4):
        take_step(stopped, clips)
    stopped.save(tmp_path / "vocoder.pt")
    resumed = new_run(config(), codec(), 99)
    resumed.load(tmp_path / "vocoder.pt")
    assert [take_step(resumed, clips)["loss"] for _ in range(4)] == pytest.approx(
        losses[4:], rel=1e-4
    )
    assert resumed.step == 8


def test_training_for_a_moment_leaves_a_voice_and_a_log(
    tmp_path: Path,
) -> None:
    training = new_run(config(), codec(), 0)
    clips = [new_clip(clip(0), codec())]
    step = partial(take_step, training, clips)
    effort = runs.Effort(minutes=0.005, rate=0.25)
    runs.keep_on(training, step, tmp_path / "vocoder.pt", effort=effort, steps_per_log=1)
    (group,) = training.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.25 * training.pace.rate(training.step - 1))
    lines = (tmp_path / "vocoder.log").read_text().splitlines()
    assert json.loads(lines[0])["step"] == 1
    resumed = new_run(config(), codec(), 0)
    resumed.load(tmp_path / "vocoder.pt")
    pcm = speak(averaged(resumed), clips[0].codes)
    assert len(pcm) == averaged(resumed).num_samples(12)
    assert float(pcm.abs().max()) <= 1.0
