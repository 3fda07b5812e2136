"""Trains the judges: `python -m pipeline.synthetic.train` writes `listening/judges.npz` anew.

Deterministic: the same programs and seeds give the same weights. Training voices and sentences are
not those that the figures come from, which it prints.

The file that ships is older than this: it learnt from 5000 turns and 5000 sounds of flite (slt,
rms, kal) and espeak-ng, each drawn anew. What 300 sentences and 700 sounds of more programs, each
told several times, are worth beside it is in `benchmarks/results/conversation.md`: no more so far.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pipeline.listening
from pipeline.listening import end_of_turn, interruption
from pipeline.listening.interruption import KINDS
from pipeline.listening.network import Network
from pipeline.listening.prosody import Floats
from pipeline.synthetic import examples, sounds
from pipeline.synthetic.sentences import HELD_OUT, TRAINING

NUM_TURNS, NUM_SOUNDS = 300, 700  # drawn sentences and sounds
NUM_TURN_TELLINGS, NUM_SOUND_TELLINGS = 2, 6  # of each: other throats, rooms, levels
NUM_HELD_OUT = 150
NUM_HIDDEN = 24
NUM_STEPS, BATCH = 2_000, 256
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 2e-3
NOISE = 0.25  # standard deviations added to normalised features while training

Drawn = tuple[Floats, int]
Labels = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]


def main() -> None:
    """Train both, print what they are worth on voices that they never heard, write the file."""
    stored: dict[str, Floats] = {}
    for name, learnt, tests, num_classes in (
        ("end_of_turn", _learnt_turns(), _held_out_turns(), 2),
        ("interruption", _learnt_sounds(), _held_out_sounds(), len(KINDS)),
    ):
        inputs, labels = _arrays(learnt)
        network = fit(inputs, labels, num_classes=num_classes, seed=1)
        others, truth = _arrays(tests)
        found = network(others).argmax(axis=1)
        print(f"{name}, held-out voices: accuracy {np.mean(found == truth):.3f}")
        for kind in range(num_classes):
            shares = [np.mean(found[truth == kind] == other) for other in range(num_classes)]
            print("   " + " ".join(f"{share:5.2f}" for share in shares))
        for key in Network.__dataclass_fields__:
            stored[f"{name}.{key}"] = getattr(network, key).astype(np.float16)
    (folder,) = pipeline.listening.__path__
    np.savez_compressed(Path(folder) / "judges.npz", **stored)  # type: ignore[arg-type]


def fit(inputs: Floats, labels: Labels, *, num_classes: int, seed: int) -> Network:
    """A network by Adam on cross-entropy. inputs: [examples, features]; labels: [examples]."""
    generator = np.random.default_rng(seed)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    num_features = inputs.shape[1]
    weights: dict[str, Any] = {
        "first": generator.normal(0, num_features**-0.5, (num_features, NUM_HIDDEN)),
        "first_bias": np.zeros(NUM_HIDDEN),
        "second": generator.normal(0, NUM_HIDDEN**-0.5, (NUM_HIDDEN, num_classes)),
        "second_bias": np.zeros(num_classes),
    }
    moments = {key: (np.zeros_like(value), np.zeros_like(value)) for key, value in weights.items()}

    places = [np.flatnonzero(labels == kind) for kind in range(num_classes)]  # equally often drawn

    def network() -> Network:
        return Network(mean=mean, scale=scale, **weights)

    for step in range(1, NUM_STEPS + 1):
        of_kind = [generator.choice(where, BATCH // num_classes) for where in places]
        drawn = np.concatenate(of_kind)
        x = inputs[drawn] + NOISE * scale * generator.normal(size=(BATCH, num_features))
        hidden = network().hidden(x)
        error = network()(x).astype(np.float64)
        error[np.arange(BATCH), labels[drawn]] -= 1
        error = error / BATCH
        back = error @ weights["second"].T * (1 - hidden**2)
        normal = np.clip((x - mean) / scale, -4, 4)
        slopes = {
            "first": normal.T @ back,
            "first_bias": back.sum(axis=0),
            "second": hidden.T @ error,
            "second_bias": error.sum(axis=0),
        }
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / NUM_STEPS))
        for key, slope in slopes.items():
            first, second = moments[key]
            first += 0.1 * (slope - first)
            second += 0.001 * (slope**2 - second)
            change = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            weights[key] = weights[key] - rate * (change + WEIGHT_DECAY * weights[key])
    return network()


def _learnt_turns() -> Iterator[Drawn]:
    chance, hearing = random.Random(11), random.Random(3)
    for _ in range(NUM_TURNS):
        for said, label in examples.learnt_turns(chance):
            for _ in range(NUM_TURN_TELLINGS):
                warped = sounds.warped(said, hearing.uniform(*examples.WARP))
                yield end_of_turn.features(examples.heard_turn(warped, hearing)), label


def _learnt_sounds() -> Iterator[Drawn]:
    chance = random.Random(12)
    for _ in range(NUM_SOUNDS):
        told = examples.sound_example(chance, pool=TRAINING, num_tellings=NUM_SOUND_TELLINGS)
        for pcm, usual_db, label in told:
            yield interruption.features(pcm, usual_db=usual_db), label


def _held_out_turns() -> Iterator[Drawn]:
    chance = random.Random(2)
    for _ in range(NUM_HELD_OUT):
        pcm, label = examples.turn_example(chance, pool=HELD_OUT)
        yield end_of_turn.features(pcm), label


def _held_out_sounds() -> Iterator[Drawn]:
    chance = random.Random(2)
    for _ in range(NUM_HELD_OUT):
        ((pcm, usual_db, label),) = examples.sound_example(chance, pool=HELD_OUT)
        yield interruption.features(pcm, usual_db=usual_db), label


def _arrays(drawn: Iterable[Drawn]) -> tuple[Floats, Labels]:
    inputs, labels = zip(*drawn, strict=True)
    return np.stack(inputs), np.array(labels)


if __name__ == "__main__":
    main()
