"""Learning to hear: a batch is each clip alone, words find their places, and everything learns."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch

from models.qwen3_omni.mel import LogMel
from models.recipe import hearing
from models.recipe.dialogues import Said
from models.recipe.hearing import Pupil, ears_of, flat_alignment, hear_batch, take_step, written
from models.recipe.learner import Learner
from models.recipe.mel_noise import accented, disturbed_features, features
from models.recipe.phonemes import num_phonemes
from models.recipe.run import Run
from models.recipe.utterances import UNKNOWN, Utterance, heard_as

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


def raw_mel(seconds: float, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    pcm = 0.1 * generator.standard_normal(round(16_000 * seconds))
    return LogMel().raw_clip(pcm.astype(np.float32))


@needs_espeak
@torch.no_grad()
def test_a_batch_is_each_clip_alone(learner: Learner) -> None:
    encoder = ears_of(learner).encoder
    mels = [features(raw_mel(seconds, i)) for i, seconds in enumerate((0.6, 1.0, 2.37, 4.1))]
    windows = [800, 200, 200, 100]
    tokens, half_way = hear_batch(encoder, mels, windows)
    for mel, frames, made, middle in zip(mels, windows, tokens, half_way, strict=True):
        assert torch.allclose(made, encoder(mel, window_frames=frames), atol=1e-5)
        assert len(middle) == len(made)


@needs_espeak
def test_words_lie_where_their_letters_do(learner: Learner) -> None:
    ears = ears_of(learner)
    mel = torch.full((128, 200), -1.0)
    mel[:, 50:150] = 1.0
    words = learner.word_ids("what is")
    placed = flat_alignment(ears, mel, 26, words)
    assert placed[:6] == [ears.blank] * 6
    assert placed[-6:] == [ears.blank] * 6
    assert [word for word in placed if word != ears.blank] == [words[0]] * 9 + [words[1]] * 4
    assert flat_alignment(ears, mel, 26, ()) == [ears.blank] * 26


@needs_espeak
def test_repetitions_and_blanks_are_not_written(learner: Learner) -> None:
    ears = ears_of(learner)
    one, two = learner.word_ids("red blue")
    said = [ears.blank, one, one, ears.blank, one, two, ears.blank]
    scores = torch.nn.functional.one_hot(torch.tensor(said), len(ears.table)).float()
    assert written(ears, scores) == (one, one, two)


@needs_espeak
def test_who_goes_on_from_a_checkpoint_is_not_led_by_a_head_that_knows_nothing(
    learner: Learner,
) -> None:
    ears = ears_of(learner)
    pupil = Pupil(ears.encoder, num_phonemes(ears.phonemes))
    run = Run.new(pupil, hearing.PACE, 0, step=5000)
    ids = tuple(learner.word_ids("what is this"))
    batch = [Utterance(mel=raw_mel(1.8, 0).half(), ids=ids)]
    assert set(take_step(run, ears, batch, random.Random(0))) == {"words", "right"}
    assert pupil.sounds.weight.grad is None
    assert pupil.encoder.proj2.weight.grad is not None


@needs_espeak
def test_everything_learns_and_the_loss_falls(learner: Learner) -> None:
    ears = ears_of(learner)
    pupil = Pupil(ears.encoder, num_phonemes(ears.phonemes))
    run = Run.new(pupil, hearing.PACE, 0)
    before = {name: p.detach().clone() for name, p in pupil.named_parameters()}
    words = ("what is this", f"{UNKNOWN} {UNKNOWN}", "")
    batch = [
        Utterance(mel=raw_mel(1.8, i).half(), ids=tuple(learner.word_ids(text)))
        for i, text in enumerate(words)
    ]
    losses = [take_step(run, ears, batch, random.Random(0)) for _ in range(8)]
    assert losses[-1]["words"] < losses[0]["words"]
    assert losses[-1]["sounds"] < losses[0]["sounds"]
    still = [n for n, p in pupil.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_foreign_words_are_unknown(learner: Learner) -> None:
    foreign = Said(text="wo ist der bahnhof", sound="foreign", language="de")
    assert heard_as(foreign) == "? ? ? ?"
    assert heard_as(Said(text="call an ambulance", sound="foreign")) == "call an ambulance"
    assert heard_as(Said(text="", sound="noise")) == ""
    assert learner.word_ids("? ?") == [learner.unknown_id] * 2


def test_disturbed_sound_is_another_each_time_and_stays_in_range() -> None:
    raw = raw_mel(2.0)
    made = [disturbed_features(raw, random.Random(seed)) for seed in range(40)]
    assert len({one.shape[1] for one in made}) > 5
    for one in made:
        assert torch.isfinite(one).all()
        assert float(one.max() - one.min()) <= 2.0 + 1e-5  # 80 dB, scaled
    again = disturbed_features(raw, random.Random(3))
    assert torch.equal(again, made[3])


def test_an_accent_keeps_how_loud_a_clip_is_and_leaves_silence_alone() -> None:
    raw = raw_mel(2.0)
    raw[:, 50:100] -= 3.0
    made = accented(raw, random.Random(1))
    assert torch.allclose(made.mean(dim=0), raw.mean(dim=0), atol=1e-4)
    assert float((made - raw).abs().max()) > 0.05
    assert torch.isfinite(accented(raw[:, :1], random.Random(2))).all()
    silent = torch.full((128, 40), -10.0)
    assert torch.allclose(accented(silent, random.Random(3)), silent, atol=0.05)
