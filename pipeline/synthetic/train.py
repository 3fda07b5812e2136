"""Trains the judges: `python -m pipeline.synthetic.train` writes `listening/judges.npz` anew.

Deterministic: the same programs and seeds give the same weights. Training voices and sentences are
not those that the figures come from, which it prints.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pipeline.listening
from pipeline.listening import end_of_turn, interruption
from pipeline.listening.network import Network
from pipeline.listening.prosody import Floats
from pipeline.synthetic import examples

NUM_TRAINING, NUM_HELD_OUT = 5_000, 500
NUM_HIDDEN = 24
NUM_STEPS, BATCH = 4_000, 256
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 2e-3
NOISE = 0.15  # standard deviations added to normalised features while training

Drawn = tuple[Floats, int]
Labels = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]


def main() -> None:
    """Train both, print what they are worth on voices that they never heard, write the file."""
    stored: dict[str, Floats] = {}
    for name, draw, num_classes in (("end_of_turn", _turn, 2), ("interruption", _sound, 4)):
        inputs, labels = _set(draw, NUM_TRAINING, seed=1, is_held_out=False)
        network = fit(inputs, labels, num_classes=num_classes, seed=1)
        for where, is_held_out in (("seen voices", False), ("held-out voices", True)):
            others, truth = _set(draw, NUM_HELD_OUT, seed=2, is_held_out=is_held_out)
            found = network(others).argmax(axis=1)
            table = [
                [float(np.mean(found[truth == a] == b)) for b in range(num_classes)]
                for a in range(num_classes)
            ]
            print(f"{name}, {where}: accuracy {np.mean(found == truth):.3f}")
            for row in table:
                print("   " + " ".join(f"{share:5.2f}" for share in row))
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

    def network() -> Network:
        return Network(mean=mean, scale=scale, **weights)

    for step in range(1, NUM_STEPS + 1):
        drawn = generator.integers(0, len(inputs), BATCH)
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


def _set(
    draw: Callable[[random.Random, bool], Drawn], count: int, *, seed: int, is_held_out: bool
) -> tuple[Floats, Labels]:
    chance = random.Random(seed)
    drawn = [draw(chance, is_held_out) for _ in range(count)]
    return np.stack([x for x, _ in drawn]), np.array([y for _, y in drawn])


def _turn(chance: random.Random, is_held_out: bool) -> Drawn:
    pcm, label = examples.turn_example(chance, is_held_out=is_held_out)
    return end_of_turn.features(pcm), label


def _sound(chance: random.Random, is_held_out: bool) -> Drawn:
    pcm, usual_db, label = examples.sound_example(chance, is_held_out=is_held_out)
    return interruption.features(pcm, usual_db=usual_db), label


if __name__ == "__main__":
    main()
