"""Fits the judges that know words: writes `pipeline/listening/word_judges.npz`.

    python -m benchmarks.word_judges sentences      # pipeline/synthetic/model_sentences.json
    python -m benchmarks.word_judges examples       # word_examples.npz: half an hour of two cores
    python -m benchmarks.word_judges fit            # word_judges.npz, and what it is worth

Made users say sentences in the embedded model's words, and others in any; its own ear reads them.
Which sentences are likely is learnt from training prompts, so those that are fitted on would all be
well known: each is read by counts that leave out its own sixth of the prompts. Figures are of
voices, sentences and prompts that nothing here has learnt from (but for "Are you a robot?").
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models.embedded
import pipeline.listening
import pipeline.synthetic
from models.engine import Engine
from models.recipe import phrases
from models.recipe.spoken import spoken_words
from models.recipe.tokenizer import read_vocabulary
from models.recipe.utterances import random_prompt
from models.word_reading import WordReader
from pipeline.listening import end_of_turn, interruption
from pipeline.listening.interruption import KINDS
from pipeline.listening.judges import our_judges
from pipeline.listening.network import Network
from pipeline.messages import Pcm, Reading
from pipeline.synthetic import examples, sentences, voices
from pipeline.synthetic.sentences import Pool
from pipeline.synthetic.train import fit

NUM_SENTENCES = 500  # of each split, and as many interruptions
NUM_FOLDS = 6
NUM_TURNS = {"model": 5620, "own": 1880}  # of training
NUM_SOUNDS = {"model": 2400, "own": 1800}
NUM_HELD_OUT = 300
AGES_MS = (240, 320, 400, 480, 640)  # of a sound, when it is judged
LAG_MS = 80  # how much older it is then than what was read
NOISE = {"turns": 0.8, "sounds": 0.25}  # see `fit`; turns are few beside their features
NUM_NETWORKS = 5  # whose mean is taken
QUESTIONS = ("what", "which", "how", "where", "who", "do", "can", "are", "is", "am")
VALUES = frozenset(
    word.lower()
    for values in (phrases.NUMBERS, phrases.TENS, phrases.COLOURS, phrases.NAMES)
    for word in values
)
SAMPLES_PER_MS = 16
EXAMPLES = Path("word_examples.npz")
(EMBEDDED,) = map(Path, models.embedded.__path__)
(LISTENING,) = map(Path, pipeline.listening.__path__)
(SYNTHETIC,) = map(Path, pipeline.synthetic.__path__)

Example = dict[str, Any]


# --------------------------------------------------------------------------------- sentences
def write_sentences() -> None:
    """What users of the bench can say in the embedded model's words."""
    made: dict[str, dict[str, list[str]]] = {}
    for name, split in (("training", "train"), ("held_out", "held_out")):
        chance = random.Random(f"model sentences {name}")
        drawn = [
            [written(random_prompt(chance, split)) for _ in range(NUM_SENTENCES)]  # type: ignore[arg-type]
            for _ in range(2)
        ]
        made[name] = {"turns": drawn[0], "interruptions": drawn[1]}
    path = SYNTHETIC / "model_sentences.json"
    path.write_text(json.dumps(made, indent=0) + "\n", encoding="utf-8")


def written(prompt: str) -> str:
    """As synthesizers want it."""
    mark = "?" if prompt.split()[0] in QUESTIONS else "."
    return f"{prompt[0].upper()}{prompt[1:]}{mark}"


def fold_of(sentence: str) -> int:
    """A sixth of the grammar: sentences that differ in a number or a name are in the same."""
    words = sentence.lower().rstrip(".?").split()
    pattern = " ".join("{}" if word in VALUES else word for word in words)
    return zlib.crc32(pattern.encode()) % NUM_FOLDS


# --------------------------------------------------------------------------------- examples
class Ear:
    """The embedded model's, with word counts that do not know one sixth of the prompts."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        engine = Engine.load(EMBEDDED)
        self._hear = engine._encoder.hear
        thinker, blank = engine._model.thinker, engine._config.thinker.audio_id
        vocabulary = read_vocabulary(EMBEDDED)
        left_out: list[Callable[[str], bool]] = [
            lambda prompt, fold=fold: fold_of(prompt) == fold  # type: ignore[misc]
            for fold in range(NUM_FOLDS)
        ]
        counted = [spoken_words(vocabulary, is_left_out=each) for each in left_out]
        counted.append(spoken_words(vocabulary))
        table = thinker.model.embed_tokens.weight
        self._readers = [WordReader(words, table, blank) for words in counted]

    @torch.inference_mode()
    def read(self, pcm: Pcm, fold: int | None) -> Reading:
        """fold: of the sentence that is said, which must not be known; None: all are."""
        reader = self._readers[-1 if fold is None else fold]
        return Reading(**asdict(reader.read(self._hear(pcm))))


def make_examples() -> None:
    """Speak, hear and judge all that is learnt from and examined with."""
    wanted = [
        (what, words, is_held_out)
        for what in ("turns", "sounds")
        for words in ("model", "own")
        for is_held_out in (False, True)
    ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(_make, wanted))
    stored = {
        f"{what} {words} {is_held_out} {key}": np.array([each[key] for each in found])
        for (what, words, is_held_out), found in zip(wanted, made, strict=True)
        for key in found[0]
    }
    np.savez_compressed(EXAMPLES, **stored)


def _make(wanted: tuple[str, str, bool]) -> list[Example]:
    what, words, is_held_out = wanted
    chance = random.Random(f"word examples {wanted}")
    own = sentences.HELD_OUT if is_held_out else sentences.TRAINING
    pool = own if words == "own" else sentences.of_model(is_held_out=is_held_out)
    numbers = NUM_TURNS if what == "turns" else NUM_SOUNDS
    number = NUM_HELD_OUT if is_held_out else numbers[words]
    make = _turn if what == "turns" else _sound
    ear = Ear()
    return [example for _ in range(number) for example in make(ear, chance, pool)]


def _turn(ear: Ear, chance: random.Random, pool: Pool) -> Iterator[Example]:
    """See `examples.ends`."""
    voice = voices.draw(chance, is_held_out=pool.is_held_out)
    text = sentences.draw(chance, pool)
    for said, label in examples.ends(chance, voice, text):
        pcm = examples.heard_turn(said, chance)
        reading = ear.read(pcm, None if pool.is_held_out else fold_of(text))
        features = end_of_turn.features(pcm)
        alone = our_judges().end_of_turn.probability(pcm)
        inputs = end_of_turn.features_with_words(features, alone, reading)
        is_used = reading.is_of_the_model
        yield {"inputs": inputs, "alone": alone, "label": label, "is_used": is_used}


def _sound(ear: Ear, chance: random.Random, pool: Pool) -> Iterator[Example]:
    """A sound over a reply, at several ages."""
    voice = voices.draw(chance, is_held_out=pool.is_held_out)
    fold = None if pool.is_held_out else chance.randrange(NUM_FOLDS)
    if fold is not None:
        told = tuple(text for text in pool.interruptions if fold_of(text) == fold)
        pool = replace(pool, interruptions=told or pool.interruptions)
    kind, usual_db = chance.choice(KINDS), chance.uniform(-36, -16)
    warp = 1.0 if pool.is_held_out else chance.uniform(*examples.WARP)
    made = examples.interjection(kind, chance, voice, usual_db=usual_db, pool=pool, warp=warp)
    before_ms, told_db = chance.uniform(80, 150), usual_db + chance.gauss(0.0, 1.5)
    whole = np.concatenate([examples.silence(before_ms), made, examples.silence(800)])
    whole = examples.in_noise(whole, chance, level_db=usual_db)
    for age_ms in AGES_MS:
        pcm, read = (
            whole[: round((before_ms + until_ms) * SAMPLES_PER_MS)]
            for until_ms in (age_ms, age_ms - LAG_MS)
        )
        kinds = our_judges().interruption.kinds(pcm, usual_db=told_db)
        alone = np.array([kinds[each] for each in KINDS], np.float32)
        inputs = interruption.features_with_words(alone, len(pcm), ear.read(read, fold))
        label = KINDS.index(kind)
        yield {"inputs": inputs, "alone": alone[0], "label": label, "age": age_ms}


# --------------------------------------------------------------------------------- fit
def fit_judges() -> None:
    """Write the networks, and print what they are worth."""
    with np.load(EXAMPLES) as stored:
        told = dict(stored)
    weights: dict[str, Any] = {}
    for name, what, num_classes in (("end_of_turn", "turns", 2), ("interruption", "sounds", 4)):
        inputs, labels = _learnt(told, what)
        settings: Any = {"num_classes": num_classes, "noise": NOISE[what], "num_hidden": 48}
        networks = [fit(inputs, labels, seed=seed, **settings) for seed in range(NUM_NETWORKS)]
        network = Network.mean_of(networks)
        for key in Network.__dataclass_fields__:
            weights[f"{name}.{key}"] = getattr(network, key).astype(np.float32)
        for words in ("model", "own"):
            exam = {key: told[f"{what} {words} True {key}"] for key in ("inputs", "alone", "label")}
            shares = network(exam["inputs"])[:, 1 if what == "turns" else 0]
            if what == "turns":
                is_used = told[f"{what} {words} True is_used"]
                _print_turns(words, exam, np.where(is_used, shares, exam["alone"]))
            else:
                _print_sounds(words, exam, shares, told[f"{what} {words} True age"])
    np.savez_compressed(LISTENING / "word_judges.npz", **weights)


def _learnt(told: Example, what: str) -> tuple[Any, Any]:
    """Inputs and labels to learn from. Of turns: those that this judge will be asked about."""
    parts = [f"{what} {words} False" for words in ("model", "own")]
    inputs, labels = (
        np.concatenate([told[f"{part} {key}"] for part in parts]) for key in ("inputs", "label")
    )
    if what == "sounds":
        return inputs, labels
    is_used = np.concatenate([told[f"{part} is_used"] for part in parts])
    return inputs[is_used], labels[is_used]


def _print_turns(words: str, exam: Example, shares: Any) -> None:
    is_end = exam["label"] == 1
    for name, scores in (("sound", exam["alone"]), ("words", shares)):
        limits = np.quantile(scores[is_end], (0.05, 0.1))
        taken = [np.mean(scores[~is_end] >= limit) for limit in limits]
        print(
            f"turns in {words} words, by {name}: AUC {area(scores, is_end):.3f}, pauses taken for "
            f"ends where 95 / 90 % of the ends are known: {taken[0]:.2f} / {taken[1]:.2f}"
        )


def _print_sounds(words: str, exam: Example, shares: Any, ages: Any) -> None:
    for age_ms in AGES_MS:
        kept = (ages == age_ms) & (exam["label"] < 2)  # interruptions and hums
        is_one = exam["label"][kept] == 0
        areas = [area(scores[kept], is_one) for scores in (exam["alone"], shares)]
        print(
            f"interruptions in {words} words against hums, {age_ms} ms old: AUC by sound "
            f"{areas[0]:.3f}, by words {areas[1]:.3f}"
        )


def area(scores: Sequence[float], is_one: Any) -> float:
    """Under the curve: how often one of the ones has more than one of the others."""
    ones, others = np.array(scores)[is_one], np.array(scores)[~is_one]
    wins = (ones[:, None] > others).mean() + (ones[:, None] == others).mean() / 2
    return float(wins)


def main() -> None:
    """Do one step; see the module's docstring."""
    steps = {"sentences": write_sentences, "examples": make_examples, "fit": fit_judges}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=steps)
    steps[parser.parse_args().step]()


if __name__ == "__main__":
    main()
