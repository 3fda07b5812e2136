"""The stages of hearing over a work folder: speaking the sentences, and training the audio encoder.

Training begins with the first shards of sentences and takes up others as they come to be there, so
that both stages may run side by side; what a step learns from depends on which are there by then.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import torch

from models.recipe.hearing import (
    PACE,
    UTTERANCES_PER_STEP,
    Pupil,
    ears_of,
    take_step,
)
from models.recipe.learner import work_learner
from models.recipe.phonemes import num_phonemes
from models.recipe.run import Effort, Run, keep_on
from models.recipe.utterances import Utterance, has_shard, load_shard, make_shard

NUM_SHARDS = 80
FIRST_SHARDS = 8
NEWEST_SHARE = 0.4  # of sentences: from the last quarter, which words came to that are new
FOLDER = "utterances"


def make_utterances(work: Path, seed: int, effort: Effort) -> None:
    """Speak more of the sentences, as long as its minutes allow."""
    stop = time.monotonic() + 60 * effort.minutes
    for number in range(NUM_SHARDS):
        if time.monotonic() > stop:
            return
        make_shard(work / FOLDER, number)


def train_hearing(work: Path, seed: int, effort: Effort) -> None:
    """Go on with the audio encoder."""
    learner = work_learner(work, seed)
    ears = ears_of(learner)
    # The convolutions are a fifth faster so.
    ears.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run.new(Pupil(ears.encoder, num_phonemes(ears.phonemes)), PACE, seed)
    path = work / "hearing.pt"
    if path.exists():
        run.load(path)
    shards: list[list[Utterance]] = []

    def step() -> dict[str, float]:
        number = len(shards)
        while number < FIRST_SHARDS or (number < NUM_SHARDS and has_shard(work / FOLDER, number)):
            shards.append(load_shard(work / FOLDER, number, learner.word_ids))
            number += 1
        chance = random.Random(f"hearing {run.seed} {run.step}")
        newest = shards[-max(1, len(shards) // 4) :]
        batch = [
            chance.choice(chance.choice(newest if chance.random() < NEWEST_SHARE else shards))
            for _ in range(UTTERANCES_PER_STEP)
        ]
        return take_step(run, ears, batch, chance)

    keep_on(run, step, path, effort=effort, steps_per_log=25, steps_per_save=200)
