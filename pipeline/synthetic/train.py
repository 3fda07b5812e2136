"""Trains the judges: `python -m pipeline.synthetic.train end_of_turn interruption` writes those
that are named into `listening/judges.npz`.

Deterministic: the same programs and seeds give the same weights. Training voices and sentences are
not those that the figures come from, which it prints.

The judge of interruptions that ships is older than this: it learnt from 5000 sounds of flite (slt,
rms, kal) and espeak-ng, each drawn anew. What 700 sounds of more programs, each told several times,
are worth beside it is in `benchmarks/results/conversation.md`: no more so far.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pipeline.listening
from pipeline.listening import end_of_turn, interruption
from pipeline.listening.interruption import KINDS
from pipeline.listening.network import CLIP, Network
from pipeline.listening.prosody import Floats
from pipeline.synthetic import examples, voices
from pipeline.synthetic.sentences import HELD_OUT, TRAINING, draw, of_model

NUM_TURNS = 3_000  # of each pool
NUM_SOUNDS = 700
NUM_SOUND_TELLINGS = 6  # of each: other throats, rooms, levels
NUM_HELD_OUT = 150
NUM_HIDDEN = 24
NUM_STEPS, BATCH = 2_000, 256
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 2e-3
NOISE = 0.25  # see `fit`
TURNS: dict[str, Any] = {"num_hidden": 48, "noise": 0.5}  # they are few beside their features
TURN_SEEDS = range(5)

Drawn = tuple[Floats, int]
Labels = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]


def main() -> None:
    """Train what is named, print what it is worth on voices that it never heard, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=("end_of_turn", "interruption"))
    names = parser.parse_args().names
    (folder,) = pipeline.listening.__path__
    path = Path(folder) / "judges.npz"
    with np.load(path) as file:
        stored = dict(file)
    if "end_of_turn" in names:
        inputs, labels = _arrays(_learnt_turns())
        turns = [fit(inputs, labels, num_classes=2, seed=seed, **TURNS) for seed in TURN_SEEDS]
        _keep(Network.mean_of(turns), "end_of_turn", stored, _held_out_turns())
    if "interruption" in names:
        inputs, labels = _arrays(_learnt_sounds())
        sound = fit(inputs, labels, num_classes=len(KINDS), seed=1)
        _keep(sound, "interruption", stored, _held_out_sounds())
    np.savez_compressed(path, **stored)


def _keep(network: Network, name: str, stored: dict[str, Any], tests: Iterable[Drawn]) -> None:
    """Print what it is worth, take it among what is stored."""
    others, truth = _arrays(tests)
    found = network(others).argmax(axis=1)
    print(f"{name}, held-out voices: accuracy {np.mean(found == truth):.3f}")
    num_classes = len(network.second_bias)
    for kind in range(num_classes):
        shares = [np.mean(found[truth == kind] == other) for other in range(num_classes)]
        print("   " + " ".join(f"{share:5.2f}" for share in shares))
    for key in Network.__dataclass_fields__:
        stored[f"{name}.{key}"] = getattr(network, key).astype(np.float16)


def fit(
    inputs: Floats,
    labels: Labels,
    *,
    num_classes: int,
    seed: int,
    num_hidden: int = NUM_HIDDEN,
    noise: float = NOISE,
) -> Network:
    """A network by Adam on cross-entropy. inputs: [examples, features]; labels: [examples]; noise:
    standard deviations of what is added to normalised features.
    """
    generator = np.random.default_rng(seed)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    num_features = inputs.shape[1]
    weights: dict[str, Any] = {
        "first": generator.normal(0, num_features**-0.5, (num_features, num_hidden)),
        "first_bias": np.zeros(num_hidden),
        "second": generator.normal(0, num_hidden**-0.5, (num_hidden, num_classes)),
        "second_bias": np.zeros(num_classes),
    }
    moments = {key: (np.zeros_like(value), np.zeros_like(value)) for key, value in weights.items()}

    places = [np.flatnonzero(labels == kind) for kind in range(num_classes)]  # equally often drawn

    def network() -> Network:
        return Network(mean=mean, scale=scale, **weights)

    for step in range(1, NUM_STEPS + 1):
        of_kind = [generator.choice(where, BATCH // num_classes) for where in places]
        drawn = np.concatenate(of_kind)
        x = inputs[drawn] + noise * scale * generator.normal(size=(BATCH, num_features))
        hidden = network().hidden(x)
        error = network()(x).astype(np.float64)
        error[np.arange(BATCH), labels[drawn]] -= 1
        error = error / BATCH
        back = error @ weights["second"].T * (1 - hidden**2)
        normal = np.clip((x - mean) / scale, -CLIP, CLIP)
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
    """Of any sentences, and of the embedded model's, which are shorter: "Great job."."""
    for words, pool in (("own", TRAINING), ("model", of_model(is_held_out=False))):
        chance = random.Random(f"turns {words} a")
        for _ in range(NUM_TURNS):
            voice = voices.draw(chance)
            for said, label in examples.ends(chance, voice, draw(chance, pool)):
                yield end_of_turn.features(examples.heard_turn(said, chance)), label


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
